"""Prefix packing compared with Axolotl's own training on the same rows: time, memory, tokens.

    bench_prefix_packing.py --smollm2 DIR    SmolLM2, which `regreason base smollm2` wrote to DIR
    bench_prefix_packing.py --wide           a random Llama of 512 x 6 with 152,000 tokens
    bench_prefix_packing.py --smollm2 DIR --shapes    batches of other lengths and branches

The rows are HH-RLHF conversations (the chosen answers) on three axes, rated by the rules. Four
trainings take turns step by step: for the arms label_only and explanation, Axolotl's trainer with
its own loss and order of the rows, and the plugin with prefix packing. Steps have the same number
of rows, but not the same rows, so time and tokens are compared over all steps.

`--shapes` draws random tokens for one conversation of 190 tokens (times 1, 2, 4 and 8) with
questions of 33 and answers of 3 or 33 tokens, and times forward and backward passes of plain rows
with all logits, as Axolotl makes them, and of the packed row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
import yaml
from bench.turns import PLUGIN, ROOT, Step, take_turns
from hh_pairs import REAL, conversations
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from regreason_plugin.annotate.rules import rate
from regreason_plugin.core.jsonl import write_records
from regreason_plugin.data_folder.build import BuildOptions, build
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.probes.head import head_at
from regreason_plugin.train.packed_batch import pack
from regreason_plugin.train.target_logits import kept_positions

WARM_UP = 2
ARMS = ("label_only", "explanation")
AXOLOTL, OURS = "helpers.plain_plugin.RegReasonPlugin", "regreason_plugin.RegReasonPlugin"
# Tokens of a conversation, a question and an answer: means of HH-RLHF with SmolLM2's tokenizer.
CONVERSATION, QUESTION, LABEL, EXPLAINED = 190, 33, 3, 33


def hh_data(folder: Path, count: int) -> DataFolder:
    """A data folder of the first conversations of HH-RLHF, with a rating for each axis."""
    ratings = folder / "ratings.jsonl"
    write_records(ratings, rate(list(islice(conversations("hh_chosen", REAL), count))))
    return build(ratings, folder / "data", BuildOptions())


def wide_model(folder: Path, tokenizer: str) -> Path:
    """A random Llama with a vocabulary of 152,000 tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=152_000, hidden_size=512, intermediate_size=1408, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=4096,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def write_config(
    scratch: Path, base: Path, data: Path, arm: str, plugin: str, args: argparse.Namespace
) -> Path:
    """Write the config of one training."""
    values = yaml.safe_load((ROOT / "studies/esnli/lora.yml").read_text(encoding="utf-8"))
    entry = {"ds_type": "json", "type": "regreason_plugin.train.strategy"}
    name = f"{arm}-{plugin.partition('.')[0]}"
    values |= {
        "base_model": str(base),
        "plugins": [plugin, PLUGIN],
        "regreason_arm": arm,
        "regreason_prefix_packing": plugin == OURS,
        "datasets": [{"path": f"{data}/train/{arm}.jsonl", **entry}],
        "dataset_prepared_path": str(scratch / name / "prepared"),
        "output_dir": str(scratch / name / "model"),
        "sequence_len": 4096,
        "micro_batch_size": args.rows,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1000,
        "max_steps": WARM_UP + args.steps + 1,
        "regreason_budget": "steps",
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
    }
    for key in ("test_datasets", "evals_per_epoch", "eval_steps", "regreason_probe_steps"):
        values.pop(key, None)
    config = scratch / f"{name}.yml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


def trainings_table(scratch: Path, args: argparse.Namespace) -> None:
    """Time, tokens and memory of the four trainings."""
    data = hh_data(scratch, args.conversations)
    base = wide_model(scratch / "wide", args.smollm2) if args.wide else Path(args.smollm2)
    configs = {
        f"{arm}, {name}": write_config(scratch, base, data.path, arm, plugin, args)
        for arm in ARMS
        for name, plugin in (("Axolotl", AXOLOTL), ("prefix packing", OURS))
    }
    taken = take_turns(configs, args.steps, WARM_UP, args.threads)
    print(
        f"{base.name if args.wide else 'SmolLM2-135M-Instruct'}, float32, LoRA, "
        f"{args.rows} rows a step, {args.steps} steps, {args.threads} threads\n"
    )
    row("arm", "tokens of an epoch", "packed", "ratio", "s a step, Axolotl", "prefix packing",
        "ratio", "of the token ratio", "MiB over the start, Axolotl", "prefix packing",
        "ratio")  # fmt: skip
    row("---", *["---:"] * 10)
    for arm in ARMS:
        tokens, packed = epoch_tokens(configs[f"{arm}, prefix packing"])
        theirs, ours = (taken[f"{arm}, {name}"] for name in ("Axolotl", "prefix packing"))
        time_ratio, token_ratio = total(theirs) / total(ours), tokens / packed
        memory = theirs[-1].added_mib, ours[-1].added_mib
        row(arm, f"{tokens:,}", f"{packed:,}", f"{token_ratio:.2f}",
            f"{total(theirs) / len(theirs):.2f}", f"{total(ours) / len(ours):.2f}",
            f"{time_ratio:.2f}", f"{time_ratio / token_ratio:.2f}",
            *(f"{one:,.0f}" for one in memory), f"{memory[1] / memory[0]:.2f}")  # fmt: skip


def total(steps: list[Step]) -> float:
    """Seconds of all steps."""
    return sum(step.seconds for step in steps)


def epoch_tokens(config: Path) -> tuple[int, int]:
    """Number of tokens of an epoch, in plain rows and packed, as `regreason check` finds them."""
    from regreason_plugin.train.check.check import check_runs
    from regreason_plugin.train.check.config_loading import read_runs

    (one,) = check_runs(read_runs(config, None, {}), str(config), 1)
    assert one.tokens is not None
    assert one.schedule is not None
    assert one.schedule.packed_tokens is not None
    return sum(one.tokens.lengths), one.schedule.packed_tokens


# --- other shapes -------------------------------------------------------------------------


def shapes_table(args: argparse.Namespace) -> None:
    """Tokens and times by the length of the conversation and the number of its questions."""
    model = AutoModelForCausalLM.from_pretrained(args.smollm2, dtype=torch.float32)
    lora = LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora).train()
    row("tokens of the conversation", "questions", "answer", "plain tokens", "packed", "ratio",
        "s plain", "s packed", "ratio")  # fmt: skip
    row("---:", *["---:"] * 8)
    shapes = [(times, 3) for times in (1, 2, 4, 8)] + [(1, 1), (1, 10)]
    for times, questions in shapes:
        for answer in (LABEL, EXPLAINED):
            batch = random_batch(CONVERSATION * times, questions, answer)
            tokens = int(batch["attention_mask"].sum())
            seconds: dict[bool, list[float]] = {True: [], False: []}
            read = tokens
            for _ in range(args.rounds + 1):
                for packs in (False, True):
                    started = time.perf_counter()
                    read = step(model, batch, packs)
                    seconds[packs].append(time.perf_counter() - started)
            plain, ours = (statistics.median(seconds[packs][1:]) for packs in (False, True))
            row(str(CONVERSATION * times), str(questions), str(answer), str(tokens), str(read),
                f"{tokens / read:.2f}", f"{plain:.2f}", f"{ours:.2f}",
                f"{plain / ours:.2f}")  # fmt: skip


def random_batch(conversation: int, questions: int, answer: int) -> dict[str, Tensor]:
    """One conversation of random tokens with several questions, as padded rows."""
    draw = torch.Generator().manual_seed(0)
    shared = torch.randint(10, 40_000, (conversation,), generator=draw)
    own = torch.randint(10, 40_000, (questions, QUESTION + answer), generator=draw)
    ids = torch.cat([shared.expand(questions, -1), own], dim=1)
    labels = ids.clone()
    labels[:, : conversation + QUESTION] = -100
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def step(model: Any, batch: dict[str, Tensor], packs: bool) -> int:
    """A forward and a backward pass; returns the number of tokens that the model read."""
    model.zero_grad()
    packed = pack(batch, model) if packs else None
    if not packs:
        model(**batch, use_cache=False).loss.backward()
        return int(batch["attention_mask"].sum())
    rows, columns = kept_positions(batch["labels"])
    labels = batch["labels"][rows, columns][None]
    if packed is None:
        shape, inputs = batch["input_ids"].shape, {**batch, "labels": labels}
        with head_at(model, shape, rows, columns):
            model(**inputs, use_cache=False).loss.backward()
        return int(batch["attention_mask"].sum())
    at = packed.rows[rows, columns], packed.columns[rows, columns]
    with packed.within, head_at(model, packed.inputs["input_ids"].shape, *at):
        model(**packed.inputs, labels=labels, use_cache=False).loss.backward()
    return packed.tokens


def row(*cells: str) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smollm2", default="runs/smollm2", help="folder of SmolLM2")
    parser.add_argument("--wide", action="store_true", help="a model with 152,000 tokens")
    parser.add_argument("--shapes", action="store_true", help="other lengths and branches")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=12, help="rows in a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--conversations", type=int, default=400)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores; torch {torch.__version__}; ", end="")
    if args.shapes:
        print(f"SmolLM2-135M-Instruct, float32, LoRA, {args.rounds} rounds in turns\n")
        torch.set_num_threads(args.threads)
        shapes_table(args)
        return
    with tempfile.TemporaryDirectory() as scratch:
        trainings_table(Path(scratch), args)


if __name__ == "__main__":
    main()
