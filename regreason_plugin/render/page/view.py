"""Prepares a comparison for the page's template, in reading order."""

from __future__ import annotations

import json
import math
from itertools import groupby
from typing import Any, NamedTuple

from regreason_plugin.comparison.comparison import (
    ALL,
    Agreement,
    Comparison,
    Difference,
    Gap,
    Setting,
    metric_of,
    run_noun,
    setting_noun,
)
from regreason_plugin.comparison.disagreements import Disagreement
from regreason_plugin.comparison.finding_words import (
    claim,
    is_found,
    is_primary,
    mark,
)
from regreason_plugin.comparison.learning_curves import curve_title
from regreason_plugin.comparison.notes import worth
from regreason_plugin.core.numbers import NONE, ends, number, p_value, signed
from regreason_plugin.metrics.metric_names import SCORE, TABLE_METRICS
from regreason_plugin.render.page.charts import charts
from regreason_plugin.render.style import COLOURS
from regreason_plugin.render.tables import (
    about_costs,
    about_generalisation,
    about_task_groups,
    costs,
    interval_scope,
    label_heads,
    mark_legend,
    setting_title,
    settings_of,
    task_groups,
    title_of,
)

# Number of colours on each side of zero.
STEPS = 5
# Documents per page of the list. The HTML holds the first page, for readers without scripts.
PAGE = 50


def typeset(text: str) -> str:
    """A number with a minus sign for a hyphen, so that signs are equally wide in a column."""
    return "\N{EN DASH}" if text == NONE else text.replace("-", "\N{MINUS SIGN}")


class Cell(NamedTuple):
    """A coloured cell of the heat map.

    Attributes:
        text: The difference.
        shade: CSS class of the colour: ``n5`` (worse, or lower) to ``p5`` (better, or higher) if a
            difference is found; ``same`` if the arms are found to be the same; else ``z``.
        mark: Sign of the finding.
        more: Tooltip with the finding, the interval and p.
    """

    text: str
    shade: str
    mark: str
    more: str


def view(
    comparison: Comparison, disagreements: list[Disagreement], disagreeing: int
) -> dict[str, Any]:
    """The variables of the template."""
    c, metric = comparison, comparison.main

    def asked_first(arm: str) -> bool:
        return is_primary(c, arm, metric)

    metrics = dict.fromkeys([*c.metrics, *(name for s in c.settings for name in s.metrics)])
    return {
        "c": c,
        "logged": c.protocol == "logged",
        "noun": setting_noun(c),
        "run": run_noun(c),
        "averaged": sum(s.pooled for s in c.settings),
        "agreement": _agreement(c),
        "task_groups": task_groups(c),
        "about_task_groups": about_task_groups(c),
        "own_metrics": {s.task: _own_metrics(c, s) for s in c.settings if s.metrics},
        "everyone": [c.baseline, *c.arms],
        "generated": "generated" in str(c.data.get("origin", "")),
        "level": f"{100 * c.level:g} %",
        "metric": metric,
        "main": title_of(c, metric),
        "in_order": [c.baseline, *sorted(c.arms, key=lambda arm: not asked_first(arm))],
        "asked_first": asked_first,
        "said": lambda difference, name=metric: claim(c, difference, name),
        "tone": _tone(c),
        "marks": mark_legend(c),
        "scope": interval_scope(c),
        "worth": worth,
        "contrasts": _contrasts(c),
        "titles": {s.task: setting_title(s) for s in c.settings},
        "settings_of": settings_of(c),
        "metrics": {name: title_of(c, name) for name in metrics},
        "documents": sum(s.documents for s in c.settings),
        "heat_maps": [
            _heat_map(c, name)
            for name in (c.metrics if c.protocol == "logged" else TABLE_METRICS)
            if name in c.metrics
        ],
        "charts": charts(c),
        "confusion": _confusions(c),
        "costs": costs(c),
        "about_costs": about_costs(c),
        "about_generalisation": about_generalisation(c) if c.generalisation else "",
        "swatches": {arm: f"c{n % len(COLOURS)}" for n, arm in enumerate([c.baseline, *c.arms])},
        "learning_of": curve_title(c.curves),
        **_conversations(c, disagreements, disagreeing),
        **_runs(c),
    }


def _tone(c: Comparison) -> str:
    """CSS class that colours the primary question by its finding."""
    if c.primary is None:
        return "open"
    difference = c.pooled[c.primary.arm][c.primary.metric]
    if is_found(difference):
        flip = -1 if metric_of(c, c.primary.metric).better == "lower" else 1
        return "better" if flip * (difference.value or 0) > 0 else "worse"
    return "alike" if difference.finding == "same" else "open"


def _own_metrics(c: Comparison, setting: Setting) -> list[tuple[str, str]]:
    """The name and the title of each metric of a task of lm_eval, the main one first.

    The tests of the main metric are those of `SCORE` where the tasks' main metrics have different
    names.
    """
    first, *others = setting.metrics
    main = SCORE if SCORE in c.differences[c.arms[0]][setting.task] else first
    return [(main, title_of(c, first)), *((name, title_of(c, name)) for name in others)]


def share_kept(gap: Gap) -> tuple[str, str]:
    """An arm's share of the gain of `explanation`, and its Fieller set in words."""
    value, low, high = (typeset(number(one, 2)) for one in (gap.value, gap.low, gap.high))
    if gap.kind == "everything":
        return value, "unbounded: any share is possible"
    if gap.low is None:
        return value, "undefined"
    if gap.kind == "outside":
        return value, f"unbounded: {low} or less, or {high} or more"
    return value, f"{low} to {high}"


# --- the heat map -------------------------------------------------------------------------


def _heat_map(c: Comparison, name: str) -> dict[str, Any]:
    metric = metric_of(c, name)
    settings = [one for one in c.settings if name in c.differences[c.arms[0]][one.task]]
    differences = [by[one.task][name] for by in c.differences.values() for one in settings]
    pooled = [c.pooled[arm][name] for arm in c.arms]
    found = [d.value for d in (*differences, *pooled) if is_found(d) and d.value]
    largest = max(map(abs, found), default=0.0)
    bound = _round_up(largest) if largest else 1.0
    exploratory = all(d.finding is None for d in (*differences, *pooled))
    flip = -1 if metric.better == "lower" else 1

    def cell(difference: Difference) -> Cell:
        more = [
            claim(c, difference, name),
            typeset(ends(difference.low, difference.high, sign=True)) or "no interval",
        ]
        if difference.p_corrected is not None:
            more.append(
                f"p {typeset(p_value(difference.p))}, corrected {p_value(difference.p_corrected)}"
            )
        shade = "none" if difference.value is None else "z"
        if is_found(difference):
            shade = _shade(difference.value, bound, flip)
        elif difference.finding == "same":
            shade = "same"
        # (If all figures are exploratory, a sentence above the map says so.)
        sign = mark(difference) if difference.value is not None and not exploratory else ""
        return Cell(typeset(signed(difference.value)), shade, sign, "; ".join(more))

    rows = [
        (
            title,
            [
                (s.axis_title, [cell(c.differences[arm][s.task][name]) for arm in c.arms])
                for s in of_dataset
            ],
        )
        for (_, title), of_dataset in groupby(settings, key=lambda one: (one.dataset, one.title))
    ]
    sides = ("worse", "better") if metric.better else ("lower", "higher")
    return {
        "name": name,
        "title": metric.title,
        "better": metric.better,
        "exploratory": exploratory,
        "sides": sides,
        "ends": (_scale_end(-flip * bound), _scale_end(flip * bound)),
        "shades": [_shade(step / STEPS, 1, 1) for step in range(-STEPS, STEPS + 1)],
        "rows": rows,
        "pooled": [cell(difference) for difference in pooled],
    }


def _shade(value: float | None, bound: float, flip: int) -> str:
    if value is None:
        return "none"
    step = round(STEPS * flip * value / bound)
    return "z" if step == 0 else f"{'p' if step > 0 else 'n'}{min(abs(step), STEPS)}"


def _round_up(value: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least the positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= value * (1 - 1e-9))


def _scale_end(value: float) -> str:
    """An end of the colour scale, without trailing zeros: ``+0.05``."""
    return typeset(f"{value:+g}")


# --- differences between arms ---------------------------------------------------------------


class Matrix(NamedTuple):
    """Differences between arms in the main metric: the row's arm minus the column's arm.

    Attributes:
        columns: The arms of the columns.
        rows: For each arm of a row, a cell for each column: the difference and its finding in
            words, or None for a pair that is not compared.
    """

    columns: list[str]
    rows: list[tuple[str, list[tuple[Difference, str] | None]]]


def _contrasts(c: Comparison) -> Matrix | None:
    metric = c.main
    by_pair = {(one.arm, one.minus): one.differences.get(metric) for one in c.contrasts}
    columns = [arm for arm in c.arms if any(minus == arm for _, minus in by_pair)]
    rows = [arm for arm in c.arms if any(of == arm for of, _ in by_pair)]

    def cell(row: str, column: str) -> tuple[Difference, str] | None:
        difference = by_pair.get((row, column))
        return (difference, claim(c, difference, metric)) if difference else None

    matrix = [(row, [cell(row, column) for column in columns]) for row in rows]
    return Matrix(columns, matrix) if rows else None


def _agreement(c: Comparison) -> list[tuple[str, str, Agreement]]:
    """A title, an arm and its counts for each task whose main metric is right or wrong."""
    return [
        (setting_title(s), arm, c.agreement[arm][s.task])
        for s in c.settings
        for arm in c.arms
        if s.task in c.agreement.get(arm, {})
    ]


# --- confusion --------------------------------------------------------------------------


def _confusions(c: Comparison) -> list[Any]:
    """For each set of counts: its title, row and column headings, and a matrix for each arm."""
    arms = [arm for arm in (c.baseline, *c.arms) if arm in c.confusion]
    titles_and_labels = {s.task: (setting_title(s), s.label_names) for s in c.settings}
    if c.settings:
        titles_and_labels[ALL] = ("", c.settings[0].label_names)
    return [
        (
            *titles_and_labels[key][:1],
            *label_heads(titles_and_labels[key][1]),
            [(arm, _confusion(c.confusion[arm][key])) for arm in arms],
        )
        for key in (c.confusion[arms[0]] if arms else ())
    ]


def _confusion(rows: list[list[int]]) -> list[list[tuple[int, str, str]]]:
    """By right label and prediction: the count, its shade, and its share of the row in words."""
    table = []
    for row in rows:
        total = sum(row) or 1
        table.append(
            [(n, _shade(n / total, 1, 1), f"{100 * n / total:.0f} % of the row") for n in row]
        )
    return table


# --- conversations ------------------------------------------------------------------------


def _conversations(
    c: Comparison, disagreements: list[Disagreement], disagreeing: int
) -> dict[str, Any]:
    """The variables of the list of documents on which the arms disagree.

    A row holds: index of the setting, id, right label (from 1), prompt, explanation, then the
    predictions and the probabilities in thousandths, each in the order of the arms; the texts of
    the labels, and whether each arm is right.
    """
    arms = [c.baseline, *c.arms]
    tasks = {d.task for d in disagreements}
    settings = [s for s in c.settings if s.task in tasks]
    indices = {s.task: index for index, s in enumerate(settings)}
    labels = {s.task: s.label_names for s in settings}
    rows = [
        (
            indices[d.task],
            d.id,
            d.label,
            d.prompt,
            d.explanation,
            [d.predictions[arm] for arm in arms],
            [[round(1000 * p) for p in d.probabilities[arm]] for arm in arms],
            d.names or labels[d.task],
            [d.right.get(arm, d.predictions[arm] == d.label) for arm in arms],
        )
        for d in disagreements
    ]
    return {
        "conversations": {
            "page": PAGE,
            "noun": "conversations" if c.settings_in_paper is not None else "documents",
            "settings": [setting_title(s) for s in settings],
            "arms": arms,
            "rows": rows,
        },
        "blank": (0, "", 1, "", "", [1] * len(arms), [[0]] * len(arms), [""], [True] * len(arms)),
        "disagreeing": disagreeing,
    }


# --- what was run -------------------------------------------------------------------------

_PARTS = ("environment", "evaluation", "training")


def _runs(c: Comparison) -> dict[str, Any]:
    """The models' records: values that all models share once, and each model's other values."""
    records = [
        # (The task declaration is left out because it is long and part of the data's hash, and
        # costs because they have their own table.)
        {
            part: {
                key: value
                for key, value in _flat(getattr(run, part)).items()
                if not key.startswith(("data.declaration.", "cost."))
            }
            for part in _PARTS
        }
        for run in c.runs
    ]
    alike = {
        part: {
            key: value
            for key, value in (records[0][part] if records else {}).items()
            if all(one[part].get(key) == value for one in records)
        }
        for part in _PARTS
    }
    own = [
        {
            key: value
            for part in _PARTS
            for key, value in one[part].items()
            # The arm and the seed have columns in the table.
            if key not in alike[part] and key not in ("arm", "seed")
        }
        for one in records
    ]
    return {
        "alike": alike,
        "runs": list(zip(c.runs, own, strict=True)),
        "data": _flat(c.data),
        "computed_with": {
            "regreason": c.regreason,
            **c.versions,
        },
    }


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested fields as one level of keys such as ``data.sha256``, with values as text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is None:
            flat[prefix + key] = typeset(NONE)
        else:
            text = isinstance(value, str)
            flat[prefix + key] = value if text else json.dumps(value, ensure_ascii=False)
    return flat
