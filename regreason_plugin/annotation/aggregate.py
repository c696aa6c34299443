"""Many scores and explanations of one conversation and axis become one of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from regreason_plugin.schema import RaterScore

LOWEST, HIGHEST = 1, 5


class Verdict(NamedTuple):
    """What the raters agree on: the mean score, its label, the explanation nearest it."""

    score: float
    label: int
    explanation: str


def rescale(score: float, scale: int) -> float:
    """Map a score of 1 to ``scale`` linearly onto 1 to 5."""
    return LOWEST + (score - 1) * (HIGHEST - LOWEST) / (scale - 1)


def round_half_up(value: float) -> int:
    """Round to the nearest whole number, and a half upwards (Python rounds it to even)."""
    # Thirds do not add up exactly: 3.4999999999999996 stands for a half.
    return math.floor(round(value, 9) + 0.5)


def aggregate(ratings: Sequence[RaterScore]) -> Verdict | None:
    """Mean of the rescaled scores, its label, and the explanation nearest the label.

    Of two explanations equally near, that of the rater and prompt whose names come first
    in the alphabet is taken, whatever the order of the ratings.

    Returns:
        None when no rater gave a score with an explanation.
    """
    usable = sorted(
        (
            (rescale(rating.score, rating.scale), rating.rater, rating.prompt, rating.explanation)
            for rating in ratings
            if rating.score is not None and rating.explanation
        ),
        key=lambda entry: entry[1:3],
    )
    if not usable:
        return None
    score = round(math.fsum(entry[0] for entry in usable) / len(usable), 9)
    label = round_half_up(score)
    nearest = min(usable, key=lambda entry: abs(entry[0] - label))
    return Verdict(score, label, nearest[3])


AGGREGATORS = ("mean",)


def aggregate_rows(rows, by="mean", minimum=1, dropped=None):  # type: ignore[no-untyped-def]
    """Provisional."""
    from regreason_plugin.schema import Rating

    for row in rows():
        if sum(one.usable for one in row.ratings) < minimum:
            dropped["too few usable scores"] += 1
            continue
        verdict = aggregate(row.ratings)
        values = {**dict(row), **verdict._asdict()}
        if row.merged and row.merged.explanation:
            values["explanation"] = row.merged.explanation
        yield Rating(**values)
