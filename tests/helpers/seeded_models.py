"""Folders of models that were trained with different seeds, with their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.compared_results import results
from helpers.compared_results import save as save_results

SHA = "ef" * 32


def model(
    grid: Path,
    arm: str,
    seed: int,
    accuracies: dict[str, float],
    changes: dict[str, Any] | None = None,
    **trained: Any,
) -> Path:
    """Write a trained model's folder with its record, and the model's results in ``eval``."""
    name = "-".join(map(str, [arm, *trained.values(), seed])).replace("/", "_")
    folder = grid / name
    record = {
        "arm": arm,
        "order": "label_first",
        "data": {"sha256": SHA, "path": "data"},
        "seed": seed,
        "label_share": None,
        "label_smoothing": 0.0,
        "steps": 100 + seed,
        "config_sha256": f"{seed}",
        "versions": {"torch": f"2.{seed}"},
        **trained,
    }
    arguments = {"pretrained": "base", "peft": str(folder)}
    save(folder / "eval", results(accuracies, config__model_args=arguments, **(changes or {})))
    (folder / "regreason.json").write_text(json.dumps(record))
    return folder


def save(folder: Path, content: dict[str, Any], date: str = "2026-01-01") -> None:
    save_results(folder / "base", content, date)
