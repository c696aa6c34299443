"""An Axolotl plugin that writes one line per step: the step's seconds and the peak memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from axolotl.integrations.base import BasePlugin
from bench.gpu.training import STEP_FILE
from transformers import TrainerCallback

from regreason_plugin.core.cost import Memory


class StepClockPlugin(BasePlugin):  # type: ignore[misc]  # axolotl is untyped
    """Measures every training step from its beginning to the beginning of the next one."""

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Add the callback that runs at each step."""
        return [_StepClock()]


class _StepClock(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self._file = Path(os.environ[STEP_FILE])
        self._started: float | None = None

    def on_step_begin(self, args: Any, *_: Any, **__: Any) -> None:
        """Write the time since the last step began, which covers its batch and its log line."""
        now = self._now()
        if self._started is not None:
            self._write(now - self._started, args)
        self._started = now

    def on_train_end(self, args: Any, *_: Any, **__: Any) -> None:
        """Write the time of the last step."""
        if self._started is not None:
            self._write(self._now() - self._started, args)

    def _now(self) -> float:
        """The time after the GPU has finished its work."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return perf_counter()

    def _write(self, seconds: float, args: Any) -> None:
        """Append the line to the file at once, because the machine may go away."""
        memory = Memory.so_far()
        on_card = torch.cuda.is_available()
        line = {
            "seconds": seconds,
            "rows": args.train_batch_size * args.gradient_accumulation_steps,
            "peak_mib": memory.peak_gpu_mib or memory.peak_memory_mib,
            "reserved_mib": torch.cuda.max_memory_reserved() / 2**20 if on_card else None,
        }
        with self._file.open("a", encoding="utf-8") as stream:
            print(json.dumps(line), file=stream)
