"""`regreason.json` beside a trained model: what it was trained on, and that it is finished."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from typing_extensions import Self

from regreason_plugin.jsonl import atomic_writer
from regreason_plugin.training.sources import Sources
from regreason_plugin.training.tokens import IGNORE

RECORD = "regreason.json"
_PACKAGES = ("regreason", "axolotl", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Progress:
    """How far a training went.

    Attributes:
        steps: Optimizer steps.
        epochs: Passes over the train rows.
        target_tokens: Tokens that the loss was taken on, over all epochs.
        processes: How many shared the work.
    """

    steps: int
    epochs: float
    target_tokens: int
    processes: int

    @classmethod
    def of(cls, trainer: Any) -> Self:
        """Read it from a trainer that has just trained."""
        epochs = float(trainer.state.epoch or 0)
        one_epoch = sum(
            sum(label != IGNORE for label in labels)
            for batch in trainer.train_dataset.select_columns("labels").iter(1000)
            for labels in batch["labels"]
        )
        steps, processes = int(trainer.state.global_step), int(trainer.accelerator.num_processes)
        return cls(steps, epochs, round(one_epoch * epochs), processes)


def read_record(output_dir: Path) -> dict[str, Any] | None:
    """The record of a finished run, or None."""
    file = output_dir / RECORD
    if not file.is_file():
        return None
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


def write_record(cfg: Any, sources: Sources, progress: Progress, config_sha256: str) -> None:
    """Write the record of a finished run into its output_dir."""
    record = {
        "arm": sources.arm,
        "order": sources.folder.order,
        "data": {
            "path": str(sources.folder.path),
            "sha256": sources.folder.sha256,
            "origin": sources.folder.origin,
        },
        "base_model": cfg.base_model,
        "adapter": cfg.adapter,
        "chat_template": cfg.datasets[0].type == "chat_template",
        "seed": cfg.seed,
        "label_share": cfg.regreason_label_share,
        "label_smoothing": cfg.regreason_label_smoothing,
        "lora_dropout": cfg.lora_dropout,
        "weight_decay": cfg.weight_decay,
        "rows": sources.rows,
        "steps": progress.steps,
        "epochs": progress.epochs,
        "target_tokens": progress.target_tokens,
        "processes": progress.processes,
        "config_sha256": config_sha256,
        "versions": {package: version(package) for package in _PACKAGES},
    }
    with atomic_writer(Path(cfg.output_dir) / RECORD) as stream:
        stream.write(json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")
