"""Candidate definitions of the activation entropy: prints the table of docs/explanation/probes.md.

    REGREASON_TEST_DATA=FOLDER python tests/bench/probe_definitions.py MODEL

MODEL is a transformers model folder whose decoder names its final norm `norm`. FOLDER holds the
real texts that `tests/helpers/real_prompts.py` reads, 20 prompts from each source. Each row is one
definition; its entropy is divided by log D and read at the last token of a prompt. The columns:

- min, median and max over the prompts and the middle blocks;
- sd, the standard deviation over the prompts of the mean over the middle blocks;
- the largest unit's share of the weights (median);
- alive, whether all values lie between 0.01 and 0.99.

`--by-block` prints a row for each block.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.real_prompts import real_prompts

from regreason_plugin.core.layers import middle_blocks

# Prompts from each source of text.
EACH = 20


def rms_normalised(h: Tensor) -> Tensor:
    """The state divided by its root mean square."""
    return h / h.square().mean(dim=-1, keepdim=True).sqrt()


def definitions(norm: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions from a state to weights over its units, by their name in the table."""
    return {
        "softmax(h)": lambda h: h.softmax(dim=-1),
        "softmax(h / rms(h))": lambda h: rms_normalised(h).softmax(dim=-1),
        "softmax(norm(h))": lambda h: norm(h).softmax(dim=-1),
        "softmax(|h| / rms(h))": lambda h: rms_normalised(h).abs().softmax(dim=-1),
        "|h|": Tensor.abs,
        "|norm(h)|": lambda h: norm(h).abs(),
        "h²": Tensor.square,
        "norm(h)²": lambda h: norm(h).square(),
    }


def states_of(model: nn.Module, norm: nn.Module, prompts: list[list[int]]) -> Tensor:
    """The last token's residual stream, ``[prompts, L + 1, D]`` in float64."""
    last: list[Tensor] = []
    # A hook, because transformers reports the last block's state only after the final norm.
    norm.register_forward_pre_hook(lambda _, args: last.append(args[0][0, -1]))
    states = []
    for ids in prompts:
        hidden = model(torch.tensor([ids]), output_hidden_states=True, logits_to_keep=1)
        states.append(torch.stack([*(one[0, -1] for one in hidden.hidden_states[:-1]), last[-1]]))
    return torch.stack(states).double()


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--chat", action="store_true", help="apply the model's chat template")
    parser.add_argument("--by-block", action="store_true")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    texts = real_prompts(EACH)
    if args.chat:
        turns = [[{"role": "user", "content": text}] for text in texts]
        texts = [
            tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            for turn in turns
        ]
    prompts = [tokenizer(text, add_special_tokens=not args.chat).input_ids for text in texts]
    norm = model.get_decoder().norm
    states = states_of(model, norm, prompts)
    norm.double()
    middle = middle_blocks(states.shape[1] - 1)
    print(f"{len(prompts)} prompts, D {states.shape[-1]}, blocks {middle[0]} to {middle[-1]}\n")
    print("| p is in proportion to | block | min | median | max | sd | largest unit | alive |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    rows = {"middle": [*middle]}
    if args.by_block:
        rows = {str(block): [block] for block in range(states.shape[1])}
    for name, weights in definitions(norm).items():
        p = weights(states)
        p = p / p.sum(dim=-1, keepdim=True)
        entropies = torch.special.entr(p).sum(dim=-1) / math.log(p.shape[-1])
        for row, blocks in rows.items():
            values = entropies[:, blocks]
            figures = [values.min(), values.median(), values.max(), values.mean(dim=1).std()]
            cells = " | ".join(f"{float(figure):.3g}" for figure in figures)
            largest = float(p[:, blocks].amax(dim=-1).median())
            alive = "yes" if ((values > 0.01) & (values < 0.99)).all() else "no"
            title = name.replace("|", "\\|")
            print(f"| `{title}` | {row} | {cells} | {largest:.1%} | {alive} |")


if __name__ == "__main__":
    main()
