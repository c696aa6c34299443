"""Writes lines of CSV, and a comparison as a long table for pandas, R or a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from regreason_plugin.comparison.comparison import Comparison, Difference, Interval, Score
from regreason_plugin.comparison.finding_words import is_primary
from regreason_plugin.core.printable import printable

UNDEFINED = Difference(value=None)
# Task, dataset, axis, number of documents, number of groups, number of effective groups.
Names = tuple[str, str, str, int, int | None, float | None]
# A spreadsheet runs a cell that begins with one of these signs (or their full-width forms) as a
# formula. A spreadsheet that splits at ; or | or " sees a cell begin after each of them, too.
_FORMULA = re.compile(r"(?:^|(?<=[;,|\"]))(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def csv_line(values: Iterable[str | float | None], *, spreadsheet_safe: bool = False) -> str:
    """One line of CSV, which ends with LF; None is an empty cell.

    Text is written unchanged by default, so that it can be joined with the table it came from.

    Args:
        values: The cells.
        spreadsheet_safe: Put an apostrophe before text that a spreadsheet would run as a formula,
            and replace control characters by U+FFFD.
    """
    safe = _for_spreadsheets if spreadsheet_safe else str
    line = io.StringIO(newline="")
    # Python below 3.13 quotes a carriage return in a cell only if the line terminator holds one,
    # and readers treat an unquoted carriage return as the end of the line.
    csv.writer(line, lineterminator="\r\n").writerow(
        safe(value) if isinstance(value, str) else value for value in values
    )
    return line.getvalue().removesuffix("\r\n") + "\n"


def _for_spreadsheets(text: str) -> str:
    return _FORMULA.sub("'", printable(text))


def to_csv(comparison: Comparison, *, spreadsheet_safe: bool = False) -> str:
    """Write a comparison as CSV: one row for each setting, arm (baseline included) and metric.

    The pooled figures come last. Numbers have all their digits; undefined values are empty cells.
    The columns from ``difference`` to ``role`` describe the arm's difference to the arm in the
    column ``minus``; they are empty for the baseline itself. ``seeds`` is the arm's number of
    seeds. ``role`` is ``primary``, ``family`` (corrected together with the other tests) or
    ``exploratory``. In pooled rows ``documents`` is the sum over the settings, and ``groups`` is
    empty because settings share groups. A contrast of two arms of which neither is the baseline
    has one row for each metric, without a score. An entropy by layer has one row for each
    ``layer`` (0 is the embeddings), without a difference.

    Args:
        comparison: The comparison to write.
        spreadsheet_safe: See `csv_line`.
    """
    rows = list(_rows(comparison))
    lines = [list(rows[0]), *([*row.values()] for row in rows)]
    return "".join(csv_line(line, spreadsheet_safe=spreadsheet_safe) for line in lines)


def _rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    c = comparison
    for setting in c.settings:
        task = setting.task
        scores = {arm: by_task[task] for arm, by_task in c.scores.items()}
        differences = {arm: by_task[task] for arm, by_task in c.differences.items()}
        size = (setting.documents, setting.groups, setting.effective_groups)
        yield from _of(c, (task, setting.dataset, setting.axis, *size), scores, differences)
    documents = sum(setting.documents for setting in c.settings)
    pooled = ("pooled", "", "", documents, None, c.effective_groups)
    yield from _of(c, pooled, c.pooled_scores, c.pooled)
    for group in c.task_groups:
        yield from _of(
            c,
            (group.name, group.name, "", group.documents, None, None),
            {arm: {c.main: score} for arm, score in group.scores.items()},
            {arm: {c.main: one} for arm, one in group.differences.items()},
        )
    for one in c.contrasts:
        for metric, difference in one.differences.items():
            yield _row(c, pooled, one.arm, metric, difference=difference, minus=one.minus)
    for metric, by_arm in c.layers.items():
        for arm, layers in by_arm.items():
            for layer, value in enumerate(layers):
                yield _row(c, pooled, arm, f"{metric}_by_layer", value, layer=layer)


def _of(
    comparison: Comparison,
    setting: Names,
    scores: dict[str, dict[str, Score]],
    differences: dict[str, dict[str, Difference]],
) -> Iterator[dict[str, Any]]:
    # The compared metrics first, then the metrics for which only scores exist.
    own = scores[comparison.baseline]
    compared = comparison.metrics if comparison.protocol != "logged" else []
    names = list(dict.fromkeys([*compared, *own]))
    for arm in (comparison.baseline, *comparison.arms):
        for metric in names:
            score, difference = scores[arm].get(metric), differences.get(arm, {}).get(metric)
            minus = comparison.baseline if difference else None
            yield _row(comparison, setting, arm, metric, score, difference=difference, minus=minus)


def _row(
    comparison: Comparison,
    setting: Names,
    arm: str,
    metric: str,
    value: Interval | None = None,
    *,
    layer: int | None = None,
    difference: Difference | None = None,
    minus: str | None = None,
) -> dict[str, Any]:
    task, dataset, axis, documents, groups, effective_groups = setting
    columns = {"value": "difference", "low": "diff_low", "high": "diff_high"}
    role = None
    if difference is not None:
        role = "exploratory" if difference.p_corrected is None else "family"
        if (task, minus) == ("pooled", comparison.baseline) and is_primary(comparison, arm, metric):
            role = "primary"
    return {
        "task": task,
        "dataset": dataset,
        "axis": axis,
        "arm": arm,
        "minus": minus,
        "metric": metric,
        "layer": layer,
        "documents": documents,
        "groups": groups,
        "effective_groups": effective_groups,
        "seeds": len(comparison.seeds[arm]),
        **{key: getattr(value or UNDEFINED, key) for key in columns},
        "seed_sd": getattr(value, "seed_sd", None),
        "if_calibrated": getattr(value, "if_calibrated", None),
        **{columns.get(key, key): one for key, one in difference or UNDEFINED},
        "role": role,
    }
