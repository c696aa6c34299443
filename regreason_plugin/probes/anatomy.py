"""The parts of a causal language model of transformers that the probes read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from regreason_plugin.core.errors import UserError


class ProbeError(UserError):
    """The model's layers are not found, or do not have the form that the probes expect."""


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model that the probes read.

    Attributes:
        layers: Decoder blocks, in their order.
        beside: Other children of the blocks' parent module, such as the final norm. The forward
            pass shows which of them run after the blocks.
        head: Module that turns the last hidden state into logits.
        finish: Function that the model applies to the head's logits.
        vocabulary: Number of logits.
    """

    layers: nn.ModuleList
    beside: list[nn.Module]
    head: nn.Module
    finish: Callable[[Tensor], Tensor]
    vocabulary: int


def dissect(model: nn.Module) -> Anatomy:
    """Find the parts of a model by its structure, because families name them differently.

    Raises:
        ProbeError: The model has no head, or no list with as many blocks as its config says.
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
    """The config of the language model, which may be part of a multimodal model."""
    config: PretrainedConfig = model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    return config


def output_head(model: nn.Module) -> nn.Module | None:
    """The module that turns hidden states into logits; None if the model names none."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return head if isinstance(head, nn.Module) else None


def _finish(config: PretrainedConfig) -> Callable[[Tensor], Tensor]:
    """The model's soft-capping and scaling of logits, by the names of transformers' configs.

    A model that transforms its logits in another way is detected later, because the logit lens of
    its last layer then differs from its output.
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
