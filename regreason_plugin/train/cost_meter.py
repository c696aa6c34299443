"""What a training takes, over all its parts where it was killed and resumed."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from regreason_plugin.core.cost import Machine, Memory, TrainingCost
from regreason_plugin.train.row_tokens import IGNORE


class Meter:
    """Counts seconds and tokens from now on.

    Whatever takes an accelerator has to be called by all its processes at the same step.

    Args:
        before: What `state` returned when the checkpoint to go on from was written.
    """

    def __init__(self, before: dict[str, Any] | None = None) -> None:
        self._before = before or {"seconds": 0.0, "tokens": 0}
        self._knows_padding = self._before["tokens"] is not None
        self._started = time.perf_counter()
        self._tokens: Tensor | None = None

    def add(self, batch: dict[str, Any]) -> None:
        """Count a batch, with no wait for the device.

        Args:
            batch: As the model gets it, with ``labels``.
        """
        tokens = count_read(batch)
        if tokens is None:
            self._knows_padding = False
        else:
            self._tokens = tokens if self._tokens is None else self._tokens + tokens

    def state(self, accelerator: Any) -> dict[str, Any]:
        """Seconds, and tokens over all processes, so far; None of tokens that nobody can tell.

        Args:
            accelerator: Of the trainer.
        """
        tokens = self._before["tokens"] if self._knows_padding else None
        if tokens is not None and self._tokens is not None:
            tokens += int(accelerator.reduce(self._tokens, reduction="sum"))
        return {"seconds": self.seconds(), "tokens": tokens}

    def seconds(self) -> float:
        """So far, in this process."""
        return float(self._before["seconds"] + time.perf_counter() - self._started)

    def cost(self, accelerator: Any) -> TrainingCost:
        """What it took, now that it has ended.

        Args:
            accelerator: Of the trainer.
        """
        return TrainingCost(
            **self.state(accelerator),
            machine=Machine.here(),
            **Memory.so_far().model_dump(),
        )


def count_read(batch: dict[str, Any]) -> Tensor | None:
    """How many tokens of a batch are no padding; None where nothing tells.

    Args:
        batch: ``attention_mask`` ``[B, T]``, 0 where it is padded; or, as Axolotl packs rows,
            ``position_ids`` ``[B, T]``, which begin at 0 with each row and with the padding, and
            ``labels`` ``[B, T]``, of which padding has none.
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
