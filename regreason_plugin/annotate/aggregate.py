"""Aggregators: they make one score, label and explanation from all ratings of a row.

A row is a conversation on one axis. Only usable ratings count (see `scores`). Scores are first
mapped linearly from 1..scale to 1..5. Then each aggregator computes:

| aggregator | score | label |
| --- | --- | --- |
| mean | the mean | the score, rounded half up |
| median | the middle score; the mean of the middle two if their number is even | the score, \
rounded half up |
| trimmed_mean | the mean without the lowest fifth and the highest fifth of the scores. A fifth is \
rounded down to whole scores: 2 of twelve, none of fewer than five | the score, rounded half up |
| majority | equal to the label | the label that most scores round to (half up); ties go to the \
label nearest the mean, then to the higher one |
| dawid_skene | the posterior mean of the label (see `dawid_skene`) | the most probable label |
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

# trimmed_mean removes this fraction of the scores from each end: one in TRIMMED_OF.
TRIMMED_OF = 5


# --- scores of one row ------------------------------------------------------------------


def mean(scores: Sequence[float]) -> float:
    """The mean, rounded to nine decimals so that a half made of thirds is exactly a half."""
    return round(math.fsum(scores) / len(scores), 9)


def median(scores: Sequence[float]) -> float:
    """The middle score; the mean of the middle two if the number of scores is even."""
    return round(statistics.median(scores), 9)


def trimmed_mean(scores: Sequence[float]) -> float:
    """The mean without the lowest fifth and the highest fifth, each rounded down."""
    cut = len(scores) // TRIMMED_OF
    return mean(sorted(scores)[cut : len(scores) - cut])


def majority(scores: Sequence[float]) -> float:
    """The most frequent label; ties go to the label nearest the mean, then to the higher one."""
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
    """Add label, score and explanation to rows; the rows keep their order.

    The explanation is the merged one if there is one, otherwise the explanation whose score is
    nearest the label. Ties go to the rater and prompt whose names come first alphabetically. A row
    with fewer than ``minimum`` usable ratings is dropped.

    Args:
        rows: Returns a new iterator over the rows; called twice for ``dawid_skene``, which needs
            all scores first.
        by: The aggregator, one of `AGGREGATORS`.
        minimum: Number of usable ratings that a row needs, at least 1.
        dropped: Receives the number of dropped rows by reason.

    Raises:
        UserError: The aggregator is unknown, or needs a package that is not installed.
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
    """The reason for dropping a row, as it is counted."""
    return "no usable rating" if minimum <= 1 else f"fewer than {minimum} usable ratings"


def _nearest(usable: Sequence[Usable], label: int) -> str:
    return min(usable, key=lambda rating: abs(rating.score - label)).explanation
