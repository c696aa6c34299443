"""Time and tokens that a training takes, the parts before a resume included."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from regreason_plugin.core.cost import Machine, Memory, TrainingCost
from regreason_plugin.train.row_tokens import IGNORE


class Meter:
    """Counts seconds and tokens from its creation on.

    Every process must call each method that takes an accelerator, and at the same step.

    Args:
        before: The value of `state` in the checkpoint from which the training resumes; None for
            a new training.
    """

    def __init__(self, before: dict[str, Any] | None = None) -> None:
        self._before = before or {"seconds": 0.0, "tokens": 0}
        self._knows_padding = self._before["tokens"] is not None
        self._started = time.perf_counter()
        self._tokens: Tensor | None = None

    def add(self, tokens: Tensor | int | None) -> None:
        """Add the tokens of a batch, without waiting for the device.

        Args:
            tokens: Number of tokens that the model read, without padding, as from `count_read`;
                None if not known.
        """
        if tokens is None:
            self._knows_padding = False
        else:
            self._tokens = torch.as_tensor(tokens) + (0 if self._tokens is None else self._tokens)

    def state(self, accelerator: Any) -> dict[str, Any]:
        """Seconds and tokens so far; the tokens are those of all processes.

        Args:
            accelerator: The trainer's accelerator.

        Returns:
            ``seconds`` and ``tokens``; ``tokens`` is None if a batch does not show its padding.
        """
        tokens = self._before["tokens"] if self._knows_padding else None
        if tokens is not None and self._tokens is not None:
            read = self._tokens.to(accelerator.device)
            tokens += int(accelerator.reduce(read, reduction="sum"))
        return {"seconds": self.seconds(), "tokens": tokens}

    def seconds(self) -> float:
        """Seconds so far, in this process."""
        return float(self._before["seconds"] + time.perf_counter() - self._started)

    def cost(self, accelerator: Any) -> TrainingCost:
        """Cost of the training, after its end.

        Args:
            accelerator: The trainer's accelerator.
        """
        return TrainingCost(
            **self.state(accelerator),
            machine=Machine.here(),
            **Memory.so_far().model_dump(),
        )


def count_read(batch: dict[str, Any]) -> Tensor | None:
    """Number of tokens in a batch, without padding; None if the batch does not show its padding.

    Args:
        batch: Either ``attention_mask`` ``[B, T]``, 0 at padding; or, for packed rows,
            ``position_ids`` ``[B, T]``, which restart at 0 with each row and with the padding,
            and ``labels`` ``[B, T]``, which has no targets in the padding.
    """
    mask: Tensor | None = batch.get("attention_mask")
    if mask is not None:
        return mask.ne(0).sum()
    positions: Tensor | None = batch.get("position_ids")
    if positions is None:
        return None
    row = positions.eq(0).cumsum(dim=-1)
    targets = row.new_zeros(len(row), row.shape[1] + 1)
    targets.scatter_add_(1, row, batch["labels"].ne(IGNORE).to(row.dtype))
    return targets.gather(1, row).ne(0).sum()
