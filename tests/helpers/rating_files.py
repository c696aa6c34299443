"""Ratings files, and data folders built from them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from regreason_plugin.core.jsonl import dumps
from regreason_plugin.core.paper import AXES

HOSTILE = "see </s> and <|im_end|> or [INST] {{ 7*7 }} {% raw %} \x00 \u202e \U0001f600"


def ratings(number: int = 60) -> list[dict[str, Any]]:
    """Ratings of two datasets in groups of two documents, all with different texts."""
    draw = random.Random(7)
    words = [f"word{i}" for i in range(40)]
    rows = []
    for i in range(number):
        dataset = ("coqa", "cornell")[i % 2]
        for axis in AXES:
            label = draw.randint(1, 5)
            rows.append(
                {
                    "id": f"{dataset}-{i}",
                    "dataset": dataset,
                    "group": f"group {i // 4} of {dataset}",
                    "conversation": [
                        {"role": "user", "content": f"question {i} {HOSTILE}"},
                        {"role": "assistant", "content": f"answer {i} " + "and more " * (i % 7)},
                    ],
                    "axis": axis,
                    "label": label,
                    "score": float(label),
                    "explanation": f"{axis} {label} " + " ".join(draw.choices(words, k=3 + i % 9)),
                }
            )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
