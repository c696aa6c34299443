"""Computes logits only where a loss is taken, and shared prefixes of a batch's rows only once.

Most tokens of a row belong to the prompt, which has no loss, and the head is the largest matrix of
a small model. With `prefix packing`, rows that share a prefix become one row of a tree
(`train.packed_batch`). Both save time and memory. Loss, gradients and the label's metrics in the
log are the same as without them.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from regreason_plugin.probes.head import head_at
from regreason_plugin.train.packed_batch import pack
from regreason_plugin.train.row_tokens import IGNORE

Batch = dict[str, Any]
# Typed as Any, because Axolotl's trainer is untyped and sets attributes of other types.
_Trainer: Any = Trainer

# Keys that replace the loss of the model's forward pass by one that needs all logits, or that
# change the batch's layout of rows and columns.
NEEDS_ALL_LOGITS = (
    "cut_cross_entropy",
    "liger_fused_linear_cross_entropy",
    "liger_cross_entropy",
    "chunked_cross_entropy",
    "flash_attn_cross_entropy",
    "use_eaft",
    "torch_compile",
)


class TargetLogits(_Trainer):  # type: ignore[misc]
    """Base class between Axolotl's trainer and transformers' Trainer, which computes the loss.

    Axolotl's trainer counts the tokens of the whole batch before it passes the batch on.

    Attributes:
        target_logits: Whether to leave out logits at which no loss is taken.
        packs_prefixes: Whether to pack rows that share a prefix; needs ``target_logits``.
        loss_labels: ``[B, T]`` or ``[1, n]``; the labels in the layout of the last batch's logits.
        loss_rows: ``[B, 1]`` or ``[1, n]``; the row of the batch that each label comes from.
        loss_batch_rows: B.
        packed_tokens: The number of tokens that the model read of the last batch; None if the
            batch was not packed.
    """

    target_logits = False
    packs_prefixes = False
    loss_labels: Tensor
    loss_rows: Tensor
    loss_batch_rows: int
    packed_tokens: int | None = None

    def compute_loss(
        self, model: nn.Module, inputs: Batch, *arguments: Any, **keywords: Any
    ) -> Any:
        """Compute the loss of transformers or of `compute_loss_func`, on the kept logits only."""
        labels = inputs["labels"]
        self.packed_tokens = None
        self.loss_labels = labels
        self.loss_batch_rows = len(labels)
        self.loss_rows = torch.arange(len(labels), device=labels.device)[:, None]
        rows, columns = kept_positions(labels)
        if not self.target_logits or not len(rows):
            return super().compute_loss(model, inputs, *arguments, **keywords)
        self.loss_labels = labels[rows, columns].masked_fill(columns == 0, IGNORE)[None]
        self.loss_rows = rows[None]
        with ExitStack() as within:
            packed = pack(inputs, self.model) if self.packs_prefixes else None
            if packed is not None:
                self.packed_tokens = packed.tokens
                inputs = packed.inputs
                rows, columns = packed.rows[rows, columns], packed.columns[rows, columns]
                if not self.args.gradient_checkpointing:
                    # The backward pass computes checkpoints again outside this context.
                    within.enter_context(packed.within)
            inputs = {**inputs, "labels": self.loss_labels}
            shape = inputs["input_ids"].shape
            within.enter_context(head_at(self.model, shape, rows, columns))
            return super().compute_loss(model, inputs, *arguments, **keywords)


def kept_positions(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The positions whose logits and labels are kept, row by row: their rows and columns, ``[n]``.

    These are the target tokens and, for each run of them, the position before, which predicts the
    first. So position t of the kept ones still predicts position t + 1.

    Args:
        labels: ``[B, T]``, -100 where no loss is taken.
    """
    target = labels != IGNORE
    kept = target.clone()
    kept[:, :-1] |= target[:, 1:]
    rows, columns = kept.nonzero(as_tuple=True)
    return rows, columns


def why_all_logits(cfg: Any, model: Any, devices: int) -> str | None:
    """Why a training needs all logits; None if it may leave out those without a loss.

    Args:
        cfg: The config as Axolotl has validated it.
        model: A model of transformers, wrapped by peft or not.
        devices: Number of GPUs over which one process splits a batch (nn.DataParallel); with
            several, the positions would be split as well.
    """
    if on := [key for key in NEEDS_ALL_LOGITS if cfg.get(key)]:
        return f"{on[0]} is on"
    if devices > 1:
        return f"one process uses {devices} GPUs; start one process per GPU"
    if (cfg.context_parallel_size or 1) > 1:
        return "context_parallel_size is above 1"
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "the adapter puts virtual tokens before the text"
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    # Models with this argument compute their logits by the head alone, at any positions.
    argument = inspect.signature(base.forward).parameters.get("logits_to_keep")
    if argument is None or "Tensor" not in str(argument.annotation):
        return f"{type(base).__name__} does not compute its logits at chosen positions"
    return None
