"""The probes as a function on any causal language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regreason_plugin.core.layers import middle_mean
from regreason_plugin.probes.forward import Decision, ProbeValues, logits_at
from regreason_plugin.probes.names import parse_probes


def measure(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    probe: str = "all",
    choices: Sequence[int] = (),
    alpha: float = 1.0,
) -> list[ProbeValues]:
    """Entropies at the last token of each prompt, where the model decides what comes next.

    One forward pass; gradients are off, the model's mode (train or eval) and weights stay
    as they are. L blocks, hidden size D, vocabulary V, natural logarithms. By layer means
    index 0 the embeddings, 1 to L the residual stream after each block, before the final
    norm; ``_mid`` is the mean over blocks ceil(L/3) to floor(2L/3).

    Args:
        model: A causal LM of transformers, or one wrapped by peft.
        input_ids: ``[B, T]`` token ids, on the model's device.
        attention_mask: ``[B, T]``, 0 where a row is padded, on either side; without it,
            nothing is.
        probe: ``all``, or names joined by ``+``: output, label, activation, logit_lens,
            matrix.
        choices: Token ids between which ``label`` takes its entropy; with ``all`` and no
            choices there is no such entropy.
        alpha: The order of the matrix entropy: 1 is von Neumann's, others are Renyi's.

    Returns:
        A dict a prompt:

        - ``output_entropy``: of the next-token distribution, nats, 0 to log V;
        - ``label_entropy``: of the same over ``choices`` alone, nats;
        - ``activation_entropy_by_layer``, the primary definition, and
          ``activation_entropy_square_by_layer`` beside it: of |h| / sum |h| (Roy and Vetterli
          2007) and of h^2 / sum h^2 (Coifman and Wickerhauser 1992) over the D units, divided
          by log D, 0 to 1. The scale of h does not matter. The paper (arXiv 2511.02044) gives
          no formula; docs/explanation/probes.md says how the primary one was chosen;
        - ``logit_lens_entropy_by_layer``: of softmax(head(norm(h))), nats, with the
          model's own soft-capping and scale; the last equals ``output_entropy``
          (nostalgebraist 2020, "interpreting GPT: the logit lens");
        - ``matrix_entropy_by_layer``: von Neumann entropy of the Gram matrix of the
          prompt's N centred, normalised token states over log min(N, D) (Skean et al.
          2025, arXiv 2502.02013); 0 for two tokens, None for one;
        - ``<name>_mid`` of each ``<name>_by_layer``; None for a model of one block.

    Raises:
        UserError: A probe is unknown, a value is not finite, or the model's layers
            cannot be found.
        ValueError: A prompt is empty, ``label`` is asked for without choices, or the order
            is not above 0.
    """
    wanted = parse_probes(probe)
    if "label" in wanted and not choices and probe != "all":
        raise ValueError("the probe 'label' needs choices, the token ids to decide between")
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    prompts = [row[keep.bool()] for row, keep in zip(input_ids, mask, strict=True)]
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt has no tokens")
    # To the right of a prompt nothing that follows is seen, so no mask is needed.
    padded = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    _, values = logits_at(
        model,
        {"input_ids": padded},
        rows=range(len(prompts)),
        columns=[len(prompt) - 1 for prompt in prompts],
        decisions=[
            Decision(number, range(len(prompt)), choices) for number, prompt in enumerate(prompts)
        ],
        probes=wanted,
        alpha=alpha,
    )
    for one in values:
        for name in [name for name in one if name.endswith("_by_layer")]:
            middle = middle_mean(one[name]) if one[name] is not None else None
            one[name.removesuffix("_by_layer") + "_mid"] = middle
    return values
