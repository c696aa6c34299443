"""Where a causal language model of transformers keeps what the probes read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from regreason_plugin.core.errors import UserError


class ProbeError(UserError):
    """This model's layers are not where, or not what, the probes expect."""


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model.

    Attributes:
        layers: The decoder blocks, in order.
        beside: What stands beside them in their parent, such as the final norm; which
            of it comes after the blocks shows when the model runs.
        head: From the last hidden state to logits.
        finish: What the model does to its head's logits.
        vocabulary: How many of them there are.
    """

    layers: nn.ModuleList
    beside: list[nn.Module]
    head: nn.Module
    finish: Callable[[Tensor], Tensor]
    vocabulary: int


def dissect(model: nn.Module) -> Anatomy:
    """Find the parts by their place in the model, whatever the family calls them.

    Raises:
        ProbeError: There is no list of as many blocks as the config says, or no head.
    """
    config = text_config(model)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None  # type: ignore[operator]
    head = output_head(model)
    for parent in (decoder if isinstance(decoder, nn.Module) else model).modules():
        for child in parent.children():
            if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers:
                beside = [module for module in parent.children() if module is not child]
                if head is not None:
                    return Anatomy(child, beside, head, _finish(config), config.vocab_size)
    raise ProbeError(
        f"{type(model).__name__} has no list of {config.num_hidden_layers} blocks with an output "
        "head, so its layers cannot be probed; use probe=none or probe=output+label"
    )


def text_config(model: nn.Module) -> PretrainedConfig:
    """The config of the language model, also within a model of several modalities."""
    config: PretrainedConfig = model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    return config


def output_head(model: nn.Module) -> nn.Module | None:
    """The module that makes logits of hidden states, if the model names one."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return head if isinstance(head, nn.Module) else None


def _finish(config: PretrainedConfig) -> Callable[[Tensor], Tensor]:
    """Soft-capping and scales by the names that transformers' configs have for them.

    A model that does something else is noticed: the logit lens of its last layer then
    is not its output.
    """
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    factor = 1.0
    for name in ("logit_scale", "lm_head_multiplier"):  # Cohere, Falcon-H1
        factor *= getattr(config, name, None) or 1.0
    factor /= getattr(config, "logits_scaling", None) or 1.0  # Granite

    def finish(logits: Tensor) -> Tensor:
        logits = logits * factor if factor != 1.0 else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    return finish
