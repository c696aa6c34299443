"""The tables of a comparison as plain text, which the terminal and Markdown show alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from regreason_plugin.compare.comparability import describe_data
from regreason_plugin.compare.comparison import (
    Comparison,
    Difference,
    Gap,
    Interval,
    Setting,
    some_settings,
)
from regreason_plugin.core.numbers import NONE, ends, number, signed
from regreason_plugin.metrics.metric_names import METRICS

# Characters of a label that is a column's head, and where there are few labels.
SHORT = 3
SHORT_OF_FEW = 9
FEW = 3
ALPHA = 0.05
HOLM = f"p < {ALPHA:g} after Holm's correction"
# What an interval speaks of.
OVER = {
    "seeds and groups": "over seeds and groups of documents",
    "groups": "over groups of documents, of these trained models only",
}


@dataclass(frozen=True)
class Cells:
    """A table as text that is not escaped for anything.

    Attributes:
        header: Names of the columns.
        body: The rows.
        footer: Rows below a line.
        words: How many columns, from the first, hold words; the others hold numbers.
        fixed: How many stand before those of the arms.
    """

    header: list[str]
    body: list[list[str]]
    footer: list[list[str]]
    words: int
    fixed: int

    def of(self, columns: Iterable[int]) -> Cells:
        """The fixed columns, and of the others these."""
        places = [*range(self.fixed), *columns]

        def chosen(row: list[str]) -> list[str]:
            return [row[place] for place in places]

        body, footer = ([chosen(row) for row in rows] for rows in (self.body, self.footer))
        return Cells(chosen(self.header), body, footer, self.words, self.fixed)


def printable(text: str) -> str:
    """Without what moves a cursor, ends a line, or changes colours or the writing's direction."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def heads(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Heads of a table's rows and columns, a label each.

    Short labels stand as they are; with longer ones the columns have their numbers alone, which
    the rows explain.
    """
    rows = [printable(label) for label in labels]
    if max(map(len, rows)) <= (SHORT_OF_FEW if len(rows) <= FEW else SHORT):
        return rows, rows
    numbers = [str(place) for place in range(1, len(rows) + 1)]
    return [f"{number}. {row}" for number, row in zip(numbers, rows, strict=True)], numbers


# --- numbers ------------------------------------------------------------------------------


def is_shown(difference: Difference) -> bool:
    """Whether it is told from zero when all that is compared is counted."""
    return difference.p_holm is not None and difference.p_holm < ALPHA


def interval(found: Interval, *, sign: bool = False) -> str:
    """Such as ``0.512 (0.480 to 0.544)``; without the ends where there are none."""
    value = signed(found.value) if sign else number(found.value)
    bracket = ends(found.low, found.high, sign=sign)
    return f"{value} ({bracket})" if bracket and found.value is not None else value


def difference(found: Difference | None) -> str:
    """Such as ``+0.020* (+0.002 to +0.038)``; a star, or a space for it, as `is_shown`."""
    if found is None:
        return NONE
    value, bracket, rest = interval(found, sign=True).partition(" (")
    return f"{value}{'*' if is_shown(found) else ' ' if bracket else ''}{bracket}{rest}"


def gap(found: Gap) -> str:
    """The set of a Fieller interval in words."""
    if found.kind == "everything" or found.low is None or found.high is None:
        return "no value is excluded"
    if found.kind == "outside":
        return f"up to {found.low:.2f}, or {found.high:.2f} and more"
    return f"{found.low:.2f} to {found.high:.2f}"


# --- what was compared, in words ----------------------------------------------------------


def caption(comparison: Comparison) -> str:
    """Data, settings and seeds in one line."""
    return f"{describe_data(comparison.data)}, {settings_of(comparison)}, {_seeds(comparison)}"


def settings_of(comparison: Comparison) -> str:
    """How many there are: of the paper's, or how many tasks."""
    return some_settings(len(comparison.settings), comparison.settings_in_paper)


def _seeds(comparison: Comparison) -> str:
    counts = sorted({len(seeds) for seeds in comparison.seeds.values()})
    several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{several} seed{'s' if counts[-1] > 1 else ''} an arm"


def over(comparison: Comparison) -> str:
    """What the intervals of the differences speak of; empty where there are none."""
    arms: dict[str, list[str]] = {}
    for arm, pooled in comparison.pooled.items():
        if found := next((one.over for one in pooled.values() if one.over), None):
            arms.setdefault(found, []).append(arm)
    which = "; ".join(
        OVER[kind] + ("" if len(arms) == 1 else f": {', '.join(names)}")
        for kind, names in arms.items()
    )
    return which and f"{100 * comparison.level:g} % intervals {which}"


def legend(comparison: Comparison) -> list[str]:
    """What the intervals, the star and the footer say, a sentence each."""
    intervals = over(comparison)
    return [
        *([f"In brackets: {intervals}."] if intervals else []),
        f"*: {HOLM}.",
        "wins: settings with a positive difference, however small.",
        "detectable: the smallest pooled difference that is found with a probability of "
        f"{comparison.power:g}.",
    ]


# --- tables -------------------------------------------------------------------------------


def accuracy(comparison: Comparison) -> Cells:
    """A row a setting: the baseline's accuracy, of every arm the difference to it."""
    baseline, arms = comparison.baseline, comparison.arms
    body = []
    for setting in comparison.settings:
        task = setting.task
        body.append(
            [
                setting.dataset,
                setting.axis_title,
                str(setting.documents),
                number(setting.majority_acc),
                number(comparison.scores[baseline][task]["acc"].value),
                *(difference(comparison.differences[arm][task]["acc"]) for arm in arms),
            ]
        )
    majority = [setting.majority_acc for setting in comparison.settings]
    mean = sum(majority) / len(majority)
    pooled = [
        number(comparison.pooled_scores[baseline]["acc"].value),
        *(difference(comparison.pooled[arm]["acc"]) for arm in arms),
    ]
    footer = [
        ["pooled", "", "", number(mean), *pooled],
        ["wins", "", "", "", "", *(wins(comparison, arm) for arm in arms)],
        ["detectable", "", "", "", "", *(detectable(comparison, arm) for arm in arms)],
    ]
    header = ["dataset", "axis", "n", "majority", baseline, *arms]
    return Cells(header, body, footer, words=2, fixed=5)


def wins(comparison: Comparison, arm: str) -> str:
    """Such as ``12 of 18 (2 tied)``."""
    found = comparison.wins[arm]
    ties = f" ({found.ties} tied)" if found.ties else ""
    return f"{found.wins} of {found.of}{ties}"


def detectable(comparison: Comparison, arm: str) -> str:
    """The smallest pooled difference of accuracy that would have been found."""
    return number(comparison.pooled[arm]["acc"].detectable)


def pooled(comparison: Comparison) -> Cells:
    """A row a metric, unweighted means over the settings."""
    body = []
    for name in comparison.metrics:
        metric = METRICS[name]
        title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
        score = comparison.pooled_scores[comparison.baseline].get(name)
        body.append(
            [
                title,
                metric.better or NONE,
                number(score.value if score else None),
                *(difference(comparison.pooled[arm].get(name)) for arm in comparison.arms),
            ]
        )
    header = ["pooled", "better", comparison.baseline, *comparison.arms]
    return Cells(header, body, [], words=2, fixed=3)


# By field of a `Cost`: what a row is called, and how many of the field's unit are one of the row's.
_COSTS = {
    "training_seconds": ("training (seconds)", 1),
    "training_tokens": ("tokens read in training", 1),
    "scoring_ms": ("scoring (ms a document)", 1),
    "peak_memory_mib": ("memory (GiB)", 1024),
    "peak_gpu_mib": ("GPU memory (GiB)", 1024),
}


def costs(comparison: Comparison) -> Cells:
    """A row a kind of cost that any arm's records have; without rows where there are none."""
    everyone = [comparison.baseline, *comparison.arms]
    found = {
        title: [getattr(comparison.costs[arm], field) for arm in everyone]
        for field, (title, _) in _COSTS.items()
    }
    units = dict(_COSTS.values())
    body = [
        [title, *(_amount(value, units[title]) for value in values)]
        for title, values in found.items()
        if any(value is not None for value in values)
    ]
    return Cells(["of one model", *everyone], body, [], words=1, fixed=2)


def _amount(value: float | None, unit: int) -> str:
    """To three digits, whole from a hundred on."""
    if value is None:
        return NONE
    value /= unit
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def about_costs(comparison: Comparison) -> str:
    """How the costs were measured."""
    machines = sorted({one for cost in comparison.costs.values() for one in cost.machines})
    return (
        "Costs are means over an arm's models, measured once, on "
        f"{' and '.join(machines)}; what ran side by side on one machine was slower for it."
    )


def of_ones_own(comparison: Comparison) -> list[Setting]:
    """The settings whose labels are shown one by one: none where all are the paper's."""
    return comparison.settings if comparison.settings_in_paper is None else []


def by_label(comparison: Comparison, setting: Setting) -> Cells:
    """A row a label, of each arm its precision and recall, such as ``0.56 / 0.62``."""
    everyone = [comparison.baseline, *comparison.arms]
    found = [comparison.classes[arm][setting.task] for arm in everyone]
    body = [
        [name, str(count), *(f"{number(of.precision, 2)} / {number(of.recall, 2)}" for of in row)]
        for name, count, *row in zip(setting.label_names, setting.labels, *found, strict=True)
    ]
    return Cells(["label", "n", *everyone], body, [], words=1, fixed=3)
