"""The scores of a ratings file as numbers: what all aggregation and agreement is computed from.

A rating is usable if it has an explanation and a score on its scale; the others do not count.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regreason_plugin.core.records import Rated, RaterScore

Floats = npt.NDArray[np.float64]
Setting = tuple[str, str]

LOWEST, HIGHEST = 1, 5


class Usable(NamedTuple):
    """A rating that counts, its score on 1 to 5."""

    rater: str
    prompt: str
    score: float
    explanation: str


def rescale(score: float, scale: int) -> float:
    """Map a score of 1 to ``scale`` linearly onto 1 to 5."""
    return LOWEST + (score - 1) * (HIGHEST - LOWEST) / (scale - 1)


def round_half_up(value: float) -> int:
    """Round to the nearest whole number, and a half upwards (Python rounds it to even)."""
    # Thirds do not add up exactly: 3.4999999999999996 stands for a half.
    return math.floor(round(value, 9) + 0.5)


def usable_ratings(ratings: Sequence[RaterScore]) -> list[Usable]:
    """The ratings that count, by rater and prompt, whatever their order."""
    return sorted(
        Usable(rating.rater, rating.prompt, rescale(rating.score, rating.scale), rating.explanation)
        for rating in ratings
        if rating.score is not None
        and 1 <= rating.score <= rating.scale
        and rating.explanation
        and rating.explanation.strip()
    )


class Coder(NamedTuple):
    """Who gives a score: one rater asked with one prompt."""

    rater: str
    prompt: str


class ScoreTable:
    """A rescaled score a conversation, axis and coder, and no text.

    About 200 bytes a row with twelve coders. Where a row has two ratings of one coder, the
    first by score counts.
    """

    def __init__(self) -> None:
        self._columns: dict[Coder, int] = {}
        self._rows: dict[Setting, dict[str, array[float]]] = {}

    def add(self, row: Rated, minimum: int = 1) -> None:
        """Take in a row's usable ratings, if there are ``minimum`` of them."""
        usable = usable_ratings(row.ratings)
        if not usable or len(usable) < minimum:
            return
        scores = array("d")
        for rating in reversed(usable):
            coder = Coder(rating.rater, rating.prompt)
            column = self._columns.setdefault(coder, len(self._columns))
            if column >= len(scores):
                scores.extend([np.nan] * (column + 1 - len(scores)))
            scores[column] = rating.score
        self._rows.setdefault((row.dataset, row.axis), {})[row.id] = scores

    @property
    def coders(self) -> list[Coder]:
        """Sorted; the columns of `matrix`."""
        return sorted(self._columns)

    @property
    def settings(self) -> list[Setting]:
        """The (dataset, axis) pairs that have rows, sorted."""
        return sorted(self._rows)

    def row(self, setting: Setting, row_id: str) -> list[float] | None:
        """A row's scores that are not missing; None where it is not here."""
        scores = self._rows.get(setting, {}).get(row_id)
        return None if scores is None else [score for score in scores if score == score]

    def ids(self, settings: Iterable[Setting]) -> list[tuple[Setting, str]]:
        """The rows of some settings, sorted; the rows of `matrix`."""
        return [
            (setting, row) for setting in sorted(settings) for row in sorted(self._rows[setting])
        ]

    def matrix(self, settings: Iterable[Setting]) -> Floats:
        """Scores of some settings.

        Returns:
            [rows, coders], on 1 to 5; NaN where a coder gave none. Both are sorted, so nothing
            computed from it depends on the file's order.
        """
        columns = [self._columns[coder] for coder in self.coders]
        rows = self.ids(settings)
        filled = np.full((len(rows), len(columns)), np.nan)
        for number, (setting, row_id) in enumerate(rows):
            scores = self._rows[setting][row_id]
            filled[number, : len(scores)] = scores
        return filled[:, columns]


def to_labels(scores: Floats) -> Floats:
    """Scores rounded half up to labels, as `round_half_up` does; NaN stays."""
    return np.asarray(np.floor(np.round(scores, 9) + 0.5))
