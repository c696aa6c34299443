"""Computes logits only in the columns of a batch where a loss is taken.

This saves time and memory: most tokens of a row belong to the prompt, which has no loss, and the
head is the largest matrix of a small model. Loss, gradients and the label's metrics in the log are
the same as with all logits.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import Trainer

from regreason_plugin.train.row_tokens import IGNORE

Batch = dict[str, Any]
# Typed as Any, because Axolotl's trainer is untyped and sets attributes of other types.
_Trainer: Any = Trainer

# Keys that replace the loss of the model's forward pass by one that needs all columns, or that
# change the batch's layout of rows and columns.
_NEEDS_ALL_COLUMNS = (
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
        target_logits: Whether to leave out columns without a loss.
        loss_labels: ``[B, T]``; the labels in the columns of the last batch's logits.
    """

    target_logits = False
    loss_labels: Tensor

    def compute_loss(
        self, model: nn.Module, inputs: Batch, *arguments: Any, **keywords: Any
    ) -> Any:
        """Compute the loss of transformers or of `compute_loss_func`, on the kept columns only."""
        if self.target_logits:
            inputs = target_columns(inputs)
        self.loss_labels = inputs["labels"]
        return super().compute_loss(model, inputs, *arguments, **keywords)


def target_columns(inputs: Batch) -> Batch:
    """The batch, with logits and labels only in the columns where a loss is taken.

    A column is kept if any row has a target token in it or in the next column. So a column with a
    target follows directly on the column that predicts it, and position t of the kept columns
    still predicts position t + 1.

    Args:
        inputs: The model's input, with ``labels`` ``[B, T]``.
    """
    labels = inputs["labels"]
    target = (labels != IGNORE).any(dim=0)
    kept = target.clone()
    kept[:-1] |= target[1:]
    columns = kept.nonzero()[:, 0]
    if not len(columns):
        return inputs
    return {**inputs, "labels": labels[:, columns], "logits_to_keep": columns}


def supports_target_logits(cfg: Any, model: Any, devices: int) -> bool:
    """Whether a training may compute logits in some columns only.

    Args:
        cfg: The config as Axolotl has validated it.
        model: A model of transformers, wrapped by peft or not.
        devices: Number of GPUs over which one process splits a batch (nn.DataParallel); with
            several, the list of columns would be split as well.
    """
    if any(cfg.get(key) for key in _NEEDS_ALL_COLUMNS):
        return False
    if devices > 1 or (cfg.context_parallel_size or 1) > 1:
        return False
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False  # prompt learning puts virtual tokens before the text
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    columns = inspect.signature(base.forward).parameters.get("logits_to_keep")
    return columns is not None and "Tensor" in str(columns.annotation)
