"""Many scores and explanations of one conversation and axis become one of each.

Scores are first mapped linearly from 1..scale onto 1..5. Then, by name:

| aggregator | score | label |
| --- | --- | --- |
| mean | the mean | the score, rounded half up |
| median | the middle score, of an even number the mean of the middle two | the same |
| trimmed_mean | the mean without the lowest and the highest fifth of the scores, each rounded \
down to whole scores: of twelve 2 + 2, of fewer than five none, and then it is the mean | the same |
| majority | the label | the label that most scores round to (half up); of equally frequent ones \
that nearest the mean, of two equally near the higher |
| dawid_skene | the mean of the label's posterior | its most probable label (`dawid_skene`) |

A rating counts if it is usable (`scores`).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from regreason_plugin.annotate.dawid_skene import check_installed, dawid_skene
from regreason_plugin.annotate.scores import (
    ScoreTable,
    Usable,
    round_half_up,
    usable_ratings,
)
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.records import Rated, Rating

# Cut from each end by trimmed_mean: one score in so many.
TRIMMED_OF = 5


# --- scores of one row ------------------------------------------------------------------


def mean(scores: Sequence[float]) -> float:
    """The mean, to nine decimals, so that thirds that make a half are a half."""
    return round(math.fsum(scores) / len(scores), 9)


def median(scores: Sequence[float]) -> float:
    """The middle score; of an even number, the mean of the middle two."""
    return round(statistics.median(scores), 9)


def trimmed_mean(scores: Sequence[float]) -> float:
    """The mean without the lowest and the highest fifth, each rounded down."""
    cut = len(scores) // TRIMMED_OF
    return mean(sorted(scores)[cut : len(scores) - cut])


def majority(scores: Sequence[float]) -> float:
    """The most frequent label; of several that nearest the mean, then the higher."""
    counts = Counter(map(round_half_up, scores))
    centre = mean(scores)
    return max(counts, key=lambda label: (counts[label], -round(abs(label - centre), 9), label))


ROWWISE: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": mean,
    "median": median,
    "majority": majority,
    "trimmed_mean": trimmed_mean,
}
AGGREGATORS: tuple[str, ...] = (*ROWWISE, "dawid_skene")


# --- rows -------------------------------------------------------------------------------


def aggregate_rows(
    rows: Callable[[], Iterable[Rated]],
    by: str = "mean",
    minimum: int = 1,
    dropped: Counter[str] | None = None,
) -> Iterator[Rating]:
    """Give rows their label, their score and their explanation, in their order.

    The explanation is the merged one where there is one, else the one whose score is nearest
    the label; of several equally near, that of the rater and prompt whose names come first in the
    alphabet. A row with fewer than ``minimum`` usable ratings is dropped.

    Args:
        rows: Gives the rows; called twice for ``dawid_skene``, which needs all scores first.
        by: One of `AGGREGATORS`.
        minimum: Usable ratings a row needs, 1 or more.
        dropped: Counts the dropped rows by reason.

    Raises:
        UserError: There is no such aggregator, or it needs a package that is missing.
    """
    if by not in AGGREGATORS:
        raise UserError(f"unknown aggregator {by!r}; {nearest(by, list(AGGREGATORS))}")
    if by == "dawid_skene":
        check_installed()
    return _labelled(rows, by, minimum, Counter() if dropped is None else dropped)


def _labelled(
    rows: Callable[[], Iterable[Rated]], by: str, minimum: int, dropped: Counter[str]
) -> Iterator[Rating]:
    table = ScoreTable()
    if by == "dawid_skene":
        for row in rows():
            table.add(row, minimum)
    posterior = dawid_skene(table)
    for row in rows():
        usable = usable_ratings(row.ratings)
        if len(usable) < max(minimum, 1):
            dropped[too_few(minimum)] += 1
            continue
        if by == "dawid_skene":
            score, label = posterior[row.dataset, row.axis][row.id]
        else:
            score = float(ROWWISE[by]([rating.score for rating in usable]))
            label = round_half_up(score)
        merged = row.merged.explanation if row.merged else None
        yield Rating(
            **{name: getattr(row, name) for name in Rated.model_fields},
            score=score,
            label=label,
            explanation=merged if merged and merged.strip() else _nearest(usable, label),
        )


def too_few(minimum: int) -> str:
    """Why a row is dropped."""
    return "no usable rating" if minimum <= 1 else f"fewer than {minimum} usable ratings"


def _nearest(usable: Sequence[Usable], label: int) -> str:
    return min(usable, key=lambda rating: abs(rating.score - label)).explanation
