"""The scores of a ratings file as numbers, the input of all aggregators and agreement figures.

A rating is usable if it has an explanation and a score within its scale. No other rating counts.
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
    """A usable rating, with its score rescaled to 1 to 5."""

    rater: str
    prompt: str
    score: float
    explanation: str


def rescale(score: float, scale: int) -> float:
    """Map a score from 1..``scale`` linearly to 1..5."""
    return LOWEST + (score - 1) * (HIGHEST - LOWEST) / (scale - 1)


def round_half_up(value: float) -> int:
    """Round to the nearest whole number, and halves up (Python rounds halves to even)."""
    # Sums of thirds are inexact: 3.4999999999999996 counts as a half.
    return math.floor(round(value, 9) + 0.5)


def usable_ratings(ratings: Sequence[RaterScore]) -> list[Usable]:
    """The usable ratings, sorted by rater and prompt."""
    return sorted(
        Usable(rating.rater, rating.prompt, rescale(rating.score, rating.scale), rating.explanation)
        for rating in ratings
        if rating.score is not None
        and 1 <= rating.score <= rating.scale
        and rating.explanation
        and rating.explanation.strip()
    )


class Coder(NamedTuple):
    """The source of a score: one rater with one prompt."""

    rater: str
    prompt: str


class ScoreTable:
    """The rescaled scores by conversation, axis and coder, without any text.

    A row with twelve coders takes about 200 bytes. If a row has two ratings of one coder, the
    lower score counts.
    """

    def __init__(self) -> None:
        self._columns: dict[Coder, int] = {}
        self._rows: dict[Setting, dict[str, array[float]]] = {}

    def add(self, row: Rated, minimum: int = 1) -> None:
        """Add the scores of a row's usable ratings, if there are at least ``minimum``."""
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
        """The coders, sorted; they are the columns of `matrix`."""
        return sorted(self._columns)

    @property
    def settings(self) -> list[Setting]:
        """The (dataset, axis) pairs that have rows, sorted."""
        return sorted(self._rows)

    def row(self, setting: Setting, row_id: str) -> list[float] | None:
        """The scores of a row that are not missing; None if the table does not have the row."""
        scores = self._rows.get(setting, {}).get(row_id)
        return None if scores is None else [score for score in scores if score == score]

    def ids(self, settings: Iterable[Setting]) -> list[tuple[Setting, str]]:
        """(setting, id) of the rows of some settings, sorted; they are the rows of `matrix`."""
        return [
            (setting, row) for setting in sorted(settings) for row in sorted(self._rows[setting])
        ]

    def matrix(self, settings: Iterable[Setting]) -> Floats:
        """The scores of some settings.

        Returns:
            [rows, coders], scores from 1 to 5; NaN where a coder gave no score. Rows and columns
            are sorted, so that results do not depend on the order of the file.
        """
        columns = [self._columns[coder] for coder in self.coders]
        rows = self.ids(settings)
        filled = np.full((len(rows), len(columns)), np.nan)
        for number, (setting, row_id) in enumerate(rows):
            scores = self._rows[setting][row_id]
            filled[number, : len(scores)] = scores
        return filled[:, columns]


def to_labels(scores: Floats) -> Floats:
    """Scores rounded half up to labels, as by `round_half_up`; NaN stays NaN."""
    return np.asarray(np.floor(np.round(scores, 9) + 0.5))
