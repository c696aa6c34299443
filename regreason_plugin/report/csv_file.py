"""A comparison as a long table for pandas, R or a spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from regreason_plugin.report.comparison import Comparison, Difference, Score
from regreason_plugin.report.tables import printable

POOLED = "pooled"
Size = dict[str, int | None]
# A spreadsheet runs a cell that begins so, also in its full-width form. One that takes another
# character than the comma for a separator sees cells begin where we have none.
_FORMULA = re.compile(r"(?:^|(?<=[;,|\"]))(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def to_csv(comparison: Comparison) -> str:
    """A row a setting, arm and metric; the baseline among the arms, the pooled figures last.

    Lines end with LF. Numbers have all their digits; what is undefined is empty. An apostrophe
    stands before a name that a spreadsheet would run, U+FFFD for a control character.
    ``diff_...`` to ``over`` are of the
    difference to the baseline, whose own are empty; ``seeds`` counts the arm's. ``documents``
    of the pooled figures is a sum; their ``groups`` are empty, as settings share groups.
    """
    frame = pd.DataFrame(list(_rows(comparison)))
    counts = ["documents", "groups", "seeds"]
    frame[counts] = frame[counts].astype("Int64")
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for setting in comparison.settings:
        task = setting.task
        place = {"task": task, "dataset": setting.dataset, "axis": setting.axis}
        size: Size = {"documents": setting.documents, "groups": setting.groups}
        scores = {arm: by_task[task] for arm, by_task in comparison.scores.items()}
        differences = {arm: by_task[task] for arm, by_task in comparison.differences.items()}
        yield from _of(comparison, place, size, scores, differences)
    place = {"task": POOLED, "dataset": "", "axis": ""}
    size = {"documents": sum(one.documents for one in comparison.settings), "groups": None}
    yield from _of(comparison, place, size, comparison.pooled_scores, comparison.pooled)


def _of(
    comparison: Comparison,
    place: dict[str, str],
    size: Size,
    scores: dict[str, dict[str, Score]],
    differences: dict[str, dict[str, Difference]],
) -> Iterator[dict[str, Any]]:
    for arm in (comparison.baseline, *comparison.arms):
        for metric in comparison.metrics:
            score = scores[arm].get(metric)
            found = differences.get(arm, {}).get(metric)
            names = {**place, "arm": arm, "metric": metric}
            yield {
                **{column: text(name) for column, name in names.items()},
                **size,
                "seeds": len(comparison.seeds[arm]),
                **{key: score and getattr(score, key) for key in ("value", "low", "high")},
                "difference": found and found.value,
                "diff_low": found and found.low,
                "diff_high": found and found.high,
                **{
                    key: found and getattr(found, key)
                    for key in ("se", "df", "p", "p_holm", "mcnemar_p", "effect", "detectable")
                },
                "over": found and found.over,
            }


def text(name: str) -> str:
    """Such that no spreadsheet runs it; without tabs and line ends."""
    return _FORMULA.sub("'", printable(name))
