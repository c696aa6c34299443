"""The tables of a comparison as plain text, which the terminal and Markdown show alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from regreason_plugin.comparison.comparability import describe_data
from regreason_plugin.comparison.comparison import (
    Comparison,
    Difference,
    Gap,
    Interval,
    Score,
    Setting,
    some_settings,
)
from regreason_plugin.comparison.finding_words import (
    EXPLORATORY,
    FOUND,
    SAME,
    claim,
    is_primary,
    main_metric,
    margin_text,
    mark,
)
from regreason_plugin.core.numbers import NONE, ends, number, signed
from regreason_plugin.metrics.metric_names import METRICS

# Characters of a label that is a column's head, and where there are few labels.
SHORT = 3
SHORT_OF_FEW = 9
FEW = 3
# What a star says.
STAR = "a difference is found, all tests counted"
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
        fixed: How many stand before those that a narrow terminal shows in parts.
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


def label_heads(labels: Sequence[str]) -> tuple[list[str], list[str]]:
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


def interval(estimate: Interval, *, sign: bool = False) -> str:
    """Such as ``0.512 (0.480 to 0.544)``; without the ends where there are none."""
    value = signed(estimate.value) if sign else number(estimate.value)
    bracket = ends(estimate.low, estimate.high, sign=sign)
    return f"{value} ({bracket})" if bracket and estimate.value is not None else value


def difference(estimate: Difference | None) -> str:
    """Such as ``+0.020* (+0.002 to +0.038)``; behind the figure its `mark`, or a space for it."""
    if estimate is None or estimate.value is None:
        return NONE
    value, bracket, rest = interval(estimate, sign=True).partition(" (")
    sign = mark(estimate)
    return f"{value}{sign or (' ' if bracket else '')}{bracket}{rest}"


def score(figure: Score | None) -> str:
    """Such as ``0.554, seeds ±0.012, n=5``: the mean of so many seeds, and their spread."""
    if figure is None or figure.value is None:
        return NONE
    spread = f", seeds ±{figure.seed_sd:.3f}" if figure.seed_sd is not None else ""
    return f"{number(figure.value)}{spread}, n={len(figure.by_seed)}"


def gap(share: Gap) -> str:
    """The set of a Fieller interval in words."""
    if share.kind == "everything" or share.low is None or share.high is None:
        return "no value is excluded"
    if share.kind == "outside":
        return f"up to {share.low:.2f}, or {share.high:.2f} and more"
    return f"{share.low:.2f} to {share.high:.2f}"


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


def interval_scope(comparison: Comparison) -> str:
    """What the intervals of the differences speak of; empty where there are none."""
    arms: dict[str, list[str]] = {}
    for arm, pooled in comparison.pooled.items():
        if scope := next((one.over for one in pooled.values() if one.over), None):
            arms.setdefault(scope, []).append(arm)
    which = "; ".join(
        OVER[kind] + ("" if len(arms) == 1 else f": {', '.join(names)}")
        for kind, names in arms.items()
    )
    return which and f"{100 * comparison.level:g} % intervals {which}"


def legend(comparison: Comparison) -> list[str]:
    """What the intervals, the marks and the footer say, a sentence each."""
    intervals = interval_scope(comparison)
    return [
        *([f"In brackets: {intervals}."] if intervals else []),
        *mark_legend(comparison),
        "wins: settings with a positive difference in accuracy, however small.",
        f"detectable: the true difference in {title_of(main_metric(comparison))}, pooled, that so "
        f"many documents and seeds find with a probability of {comparison.power:g}; in brackets, "
        "as far as this sample shows.",
    ]


def mark_legend(comparison: Comparison) -> list[str]:
    """What the marks behind a difference say."""
    return [
        f"{FOUND}: {STAR}.",
        f"{SAME}: found to be within ±{margin_text(comparison)}.",
        f"{EXPLORATORY}: exploratory, no claim. No mark: not enough to tell.",
    ]


def title_of(metric: str) -> str:
    """What a metric is called."""
    return METRICS[metric].title


# --- tables -------------------------------------------------------------------------------


def arms(comparison: Comparison) -> Cells:
    """A row an arm, the primary question's first: score, difference, finding in words."""
    c, metric = comparison, main_metric(comparison)
    base = c.pooled_scores[c.baseline].get(metric)
    body = []
    for arm in sorted(c.arms, key=lambda arm: not is_primary(c, arm, metric)):
        one = c.pooled[arm].get(metric, Difference(value=None))
        role = " (primary)" if is_primary(c, arm, metric) else ""
        body.append(
            [
                arm,
                score(c.pooled_scores[arm].get(metric)),
                difference(one),
                claim(c, one, metric) + role,
                detectable(c, arm),
            ]
        )
    body.append([c.baseline, score(base), NONE, "baseline", NONE])
    header = ["arm", title_of(metric), "difference", "finding", "detectable"]
    return Cells(header, body, [], words=1, fixed=1)


def by_setting(comparison: Comparison) -> Cells:
    """A row a setting: the baseline's score in the main metric, of every arm its difference."""
    c, metric = comparison, main_metric(comparison)
    about_accuracy = metric == "acc"
    body = []
    for setting in c.settings:
        task = setting.task
        base = c.scores[c.baseline][task].get(metric)
        body.append(
            [
                setting.dataset,
                setting.axis_title,
                str(setting.documents),
                number(setting.majority_acc) if about_accuracy else NONE,
                number(base.value if base else None),
                *(difference(c.differences[arm][task].get(metric)) for arm in c.arms),
            ]
        )
    majority = [setting.majority_acc for setting in c.settings]
    base = c.pooled_scores[c.baseline].get(metric)
    footer = [
        [
            *("pooled", "", ""),
            number(sum(majority) / len(majority)) if about_accuracy else NONE,
            number(base.value if base else None),
            *(difference(c.pooled[arm].get(metric)) for arm in c.arms),
        ],
        ["wins", "", "", "", "", *(wins(c, arm) for arm in c.arms)] if about_accuracy else [],
        ["detectable", "", "", "", "", *(detectable(c, arm) for arm in c.arms)],
    ]
    header = ["dataset", "axis", "n", "majority", c.baseline, *c.arms]
    return Cells(header, body, [row for row in footer if row], words=2, fixed=5)


def wins(comparison: Comparison, arm: str) -> str:
    """Such as ``12 of 18 (2 tied)``."""
    tally = comparison.wins[arm]
    ties = f" ({tally.ties} tied)" if tally.ties else ""
    return f"{tally.wins} of {tally.of}{ties}"


def detectable(comparison: Comparison, arm: str) -> str:
    """The smallest pooled difference of the main metric that is found, with its range."""
    known = comparison.detectable.get(arm)
    return interval(known) if known else NONE


def contrasts(comparison: Comparison) -> Cells | None:
    """The arms against one another in the main metric: the row's minus the column's."""
    metric = main_metric(comparison)
    by_pair = {(one.arm, one.minus): one.differences.get(metric) for one in comparison.contrasts}
    columns = [arm for arm in comparison.arms if any(minus == arm for _, minus in by_pair)]
    rows = [arm for arm in comparison.arms if any(of == arm for of, _ in by_pair)]
    if not rows:
        return None
    body = [
        [row, *(difference(by_pair[row, one]) if (row, one) in by_pair else "" for one in columns)]
        for row in rows
    ]
    return Cells(["minus", *columns], body, [], words=1, fixed=1)


def pooled(comparison: Comparison) -> Cells:
    """A row a metric, unweighted means over the settings."""
    body = []
    for name in comparison.metrics:
        metric = METRICS[name]
        title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
        base = comparison.pooled_scores[comparison.baseline].get(name)
        body.append(
            [
                title,
                metric.better or NONE,
                number(base.value if base else None),
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
    by_title = {
        title: [getattr(comparison.costs[arm], field) for arm in everyone]
        for field, (title, _) in _COSTS.items()
    }
    units = dict(_COSTS.values())
    body = [
        [title, *(_amount(value, units[title]) for value in values)]
        for title, values in by_title.items()
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


def generalisation(comparison: Comparison) -> Cells:
    """A row an arm: its label loss on train rows and on test rows, and the gap between them."""
    c = comparison
    body = [
        [
            arm,
            interval(one.train),
            interval(one.test),
            _explored(one.gap),
            _explored(one.difference) if one.difference else NONE,
        ]
        for arm, one in c.generalisation.items()
    ]
    header = ["arm", "train rows", "test rows", "gap", f"gap minus that of {c.baseline}"]
    return Cells(header, body, [], words=1, fixed=1)


def _explored(figure: Interval) -> str:
    """A figure that makes no claim whatever its interval is, with the mark that says it."""
    return difference(Difference(value=figure.value, low=figure.low, high=figure.high))


def about_generalisation(comparison: Comparison) -> str:
    """What is in `generalisation`, and what a gap means."""
    first, *_ = comparison.generalisation.values()
    scopes = dict.fromkeys(OVER[one.over] for one in comparison.generalisation.values() if one.over)
    intervals = f", with {100 * comparison.level:g} % intervals {' or '.join(scopes)}"
    return (
        f"Label loss ({METRICS['nll'].title}, {METRICS['nll'].unit}) on {first.train_documents:,} "
        f"train and {first.test_documents:,} test rows{intervals if scopes else ''}. The gap is "
        "test minus train: a model that overfits has a smaller loss on the rows that it was "
        "trained on. These figures are exploratory and make no claim."
    )


def own_settings(comparison: Comparison) -> list[Setting]:
    """The settings whose labels are shown one by one: none where all are the paper's."""
    return comparison.settings if comparison.settings_in_paper is None else []


def by_label(comparison: Comparison, setting: Setting) -> Cells:
    """A row a label, of each arm its precision and recall, such as ``0.56 / 0.62``."""
    everyone = [comparison.baseline, *comparison.arms]
    by_arm = [comparison.classes[arm][setting.task] for arm in everyone]
    body = [
        [name, str(count), *(f"{number(of.precision, 2)} / {number(of.recall, 2)}" for of in row)]
        for name, count, *row in zip(setting.label_names, setting.labels, *by_arm, strict=True)
    ]
    return Cells(["label", "n", *everyone], body, [], words=1, fixed=3)
