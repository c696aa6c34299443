"""A second plugin that records the rows that a process reads and can stop it at a step."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback


class WatchingPlugin(BasePlugin):
    """Writes ``rows-RANK.jsonl`` next to the model's folder: one line per batch, without padding.

    With ``WAIT="STEPS RANK ..."`` in the environment, these ranks write their process id to
    ``waits-RANK`` after this many steps and then wait, so that a test can kill them.
    """

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Add callbacks that record the model's inputs and wait if ``WAIT`` says so."""
        folder, rank = Path(cfg.output_dir).parent, os.environ.get("RANK", "0")
        rows = (folder / f"rows-{rank}.jsonl").open("a", encoding="utf-8")

        def note(_module: Any, _args: Any, batch: dict[str, Any]) -> None:
            read = [
                ids[mask.bool()].tolist()
                for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
            ]
            rows.write(json.dumps(read) + "\n")
            rows.flush()

        trainer.model.register_forward_pre_hook(note, with_kwargs=True)
        steps, *ranks = (os.environ.get("WAIT") or "0").split()
        return [_Wait(folder / f"waits-{rank}", int(steps))] if rank in ranks else []


class _Wait(TrainerCallback):
    def __init__(self, file: Path, steps: int) -> None:
        self._file = file
        self._steps = steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._steps:
            self._file.write_text(str(os.getpid()))
            time.sleep(3600)

    on_train_end = on_step_begin
