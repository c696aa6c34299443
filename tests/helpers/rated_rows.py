"""Rated rows with known scores."""

from __future__ import annotations

import random
from typing import Any

from regreason_plugin.core.paper import AXES

SCALES = (("adam", "four", 4), ("adam", "five", 5), ("beth", "four", 4), ("beth", "five", 5))


def make_rows(number: int = 60, seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rated rows without a label, and people's labels for a third of them.

    Two of five ratings are outliers, so that people's labels agree with the median, not the mean.
    """
    draw = random.Random(seed)
    rows, golden = [], []
    for n in range(number):
        for axis in AXES:
            true = draw.randint(2, 4)
            given = [(*coder, true) for coder in SCALES[1::2]]
            given += [("carl", "five", 5, true), ("dora", "five", 5, 1), ("eric", "five", 5, 1)]
            rows.append(
                {
                    "id": f"row {n}",
                    "dataset": ("coqa", "cornell")[n % 2],
                    "group": f"g{n}",
                    "conversation": [{"role": "assistant", "content": f"Answer {n}."}],
                    "axis": axis,
                    "ratings": [
                        {
                            "rater": rater,
                            "prompt": prompt,
                            "scale": scale,
                            "score": score,
                            "explanation": f"{rater} with {prompt} on {n} says so.",
                        }
                        for rater, prompt, scale, score in given
                    ],
                }
            )
            if n % 3 == 0:
                golden.append({"id": f"row {n}", "axis": axis, "label": true})
    return rows, golden
