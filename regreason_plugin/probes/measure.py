"""`measure`: the probes as a function of any causal language model."""

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
    """Entropies inside a model at the last token of each prompt, where it decides what comes next.

    The function runs one forward pass without gradients; it changes neither the model's mode
    (train or eval) nor its weights. The model has L blocks, hidden size D and vocabulary V;
    logarithms are natural. A list by layer has L + 1 values: index 0 is of the embeddings, and 1
    to L are of the residual stream after each block, before the final norm. A value ``_mid`` is
    the mean over blocks ceil(L/3) to floor(2L/3).

    Args:
        model: A causal language model of transformers, which peft may have wrapped.
        input_ids: Token ids ``[B, T]``, on the model's device.
        attention_mask: ``[B, T]``, 0 at padding, which may be on either side; None without
            padding.
        probe: ``all``, or names joined by ``+``: output, label, activation, logit_lens, matrix.
        choices: Token ids for the probe ``label``; with ``all`` and no choices, this probe is
            left out.
        alpha: Order of the matrix entropy: 1 is von Neumann's, other orders are Renyi's.

    Returns:
        A dict for each prompt:

        - ``output_entropy``: entropy of the next-token distribution in nats, 0 to log V;
        - ``label_entropy``: entropy of the next-token distribution over ``choices`` only, in nats;
        - ``activation_entropy_by_layer``, the primary definition, and
          ``activation_entropy_square_by_layer``: entropies of |h| / sum |h| (Roy and Vetterli
          2007) and of h^2 / sum h^2 (Coifman and Wickerhauser 1992) over the D units of the state
          h, divided by log D, 0 to 1. The scale of h does not matter. The paper (arXiv
          2511.02044) gives no formula; docs/explanation/probes.md says how the primary definition
          was chosen;
        - ``logit_lens_entropy_by_layer``: entropy of softmax(head(norm(h))) in nats, with the
          model's own soft-capping and scale; the last value equals ``output_entropy``
          (nostalgebraist 2020, "interpreting GPT: the logit lens");
        - ``matrix_entropy_by_layer``: von Neumann entropy of the Gram matrix of the prompt's N
          centred, normalised token states, divided by log min(N, D) (Skean et al. 2025, arXiv
          2502.02013); 0 for two tokens, None for one;
        - ``<name>_mid`` for each ``<name>_by_layer``; None for a model of one block.

    Raises:
        UserError: A probe is unknown, a value is not finite, or the model's layers cannot be
            found.
        ValueError: A prompt is empty, ``label`` is asked for without choices, or the order is not
            above 0.

    Example:
        >>> from transformers import AutoModelForCausalLM, AutoTokenizer
        >>> from regreason_plugin import measure
        >>> model = AutoModelForCausalLM.from_pretrained("BASE")
        >>> prompt = AutoTokenizer.from_pretrained("BASE")("How natural?", return_tensors="pt")
        >>> values = measure(model, prompt["input_ids"], probe="activation")[0]
        >>> len(values["activation_entropy_by_layer"]) == model.config.num_hidden_layers + 1
        True
    """
    wanted = parse_probes(probe)
    if "label" in wanted and not choices and probe != "all":
        raise ValueError("the probe 'label' needs choices, the token ids to decide between")
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    prompts = [row[keep.bool()] for row, keep in zip(input_ids, mask, strict=True)]
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt has no tokens")
    # A causal model does not see the padding to the right of a prompt, so it needs no mask.
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
    for of_prompt in values:
        for name in [name for name in of_prompt if name.endswith("_by_layer")]:
            layers = of_prompt[name]
            middle = middle_mean(layers) if layers is not None else None
            of_prompt[name.removesuffix("_by_layer") + "_mid"] = middle
    return values
