"""Logits only in the columns where a loss is taken.

Most tokens of a row are the prompt's, on which there is no loss, and the head is a small model's
largest matrix. Loss, gradients and what the log says of the label are the same with and without.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import Trainer

from regreason_plugin.train.row_tokens import IGNORE

Batch = dict[str, Any]
# (Axolotl's trainer beside it is untyped, and what it sets is of other types than here.)
_Trainer: Any = Trainer

# Another loss than that of the model's forward pass, made from all columns; or another layout of
# rows and columns than that of the batch.
_OTHERWISE = (
    "cut_cross_entropy",
    "liger_fused_linear_cross_entropy",
    "liger_cross_entropy",
    "chunked_cross_entropy",
    "flash_attn_cross_entropy",
    "use_eaft",
    "torch_compile",
)


class TargetLogits(_Trainer):  # type: ignore[misc]
    """Goes between Axolotl's trainer and transformers', which takes the loss.

    Axolotl's counts the tokens of the whole batch before it hands the batch on.

    Attributes:
        target_logits: Whether to leave columns out.
        loss_labels: ``[B, T]``, the labels in the columns of the last batch's logits.
    """

    target_logits = False
    loss_labels: Tensor

    def compute_loss(
        self, model: nn.Module, inputs: Batch, *arguments: Any, **keywords: Any
    ) -> Any:
        """Transformers' or `compute_loss_func`'s loss of the columns that matter."""
        if self.target_logits:
            inputs = target_columns(inputs)
        self.loss_labels = inputs["labels"]
        return super().compute_loss(model, inputs, *arguments, **keywords)


def target_columns(inputs: Batch) -> Batch:
    """The batch with logits and labels only where a loss is taken.

    A column is kept where any row has a target token there or right after it. So the column after
    a kept one is kept, too, if it has a target: position t of what is kept still predicts t + 1.

    Args:
        inputs: As the model takes it, with ``labels`` ``[B, T]``.
    """
    labels = inputs["labels"]
    target = (labels != IGNORE).any(dim=0)
    kept = target.clone()
    kept[:-1] |= target[1:]
    columns = kept.nonzero()[:, 0]
    if not len(columns):
        return inputs
    return {**inputs, "labels": labels[:, columns], "logits_to_keep": columns}


def can_leave_out(cfg: Any, model: Any, devices: int) -> bool:
    """Whether a training may make logits in some columns only.

    Args:
        cfg: The config as Axolotl has validated it.
        model: A model of transformers, wrapped by peft or not.
        devices: GPUs among which one process splits a batch (nn.DataParallel), which would split
            the columns, too.
    """
    if any(cfg.get(key) for key in _OTHERWISE):
        return False
    if devices > 1 or (cfg.context_parallel_size or 1) > 1:
        return False
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False  # it puts tokens of its own before the text
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    columns = inspect.signature(base.forward).parameters.get("logits_to_keep")
    return columns is not None and "Tensor" in str(columns.annotation)
