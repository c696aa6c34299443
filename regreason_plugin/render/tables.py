"""The tables of a comparison as plain text, which terminal and Markdown show identically."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from regreason_plugin.comparison.comparison import (
    Comparison,
    Difference,
    Gap,
    Interval,
    Score,
    Setting,
    metric_of,
    run_noun,
    some_settings,
)
from regreason_plugin.comparison.finding_words import (
    EXPLORATORY,
    FOUND,
    SAME,
    claim,
    is_primary,
    margin_text,
    mark,
    these_models,
)
from regreason_plugin.comparison.notes import about_data
from regreason_plugin.core.numbers import NONE, ends, number, signed
from regreason_plugin.core.printable import printable
from regreason_plugin.metrics.metric_names import METRICS

# Labels head columns if each has at most `SHORT` characters, or at most `SHORT_OF_FEW` characters
# with at most `FEW` labels. Otherwise the labels' numbers head the columns.
SHORT = 3
SHORT_OF_FEW = 9
FEW = 3
# The meaning of a star.
STAR = "a difference is found, corrected for multiple comparisons"
# By scope of an interval: the scope in words.
OVER = {
    "seeds and groups": "over {run}s and groups of documents",
    "groups": "over groups of documents, {these_models} only",
}


@dataclass(frozen=True)
class Cells:
    """A table of plain text, not escaped for any format.

    Attributes:
        header: Names of the columns.
        body: The rows.
        footer: Rows below a separating line, such as pooled figures.
        words: Number of leading columns that hold words; the others hold numbers.
        fixed: Number of leading columns that a narrow terminal repeats in every part of the table.
    """

    header: list[str]
    body: list[list[str]]
    footer: list[list[str]]
    words: int
    fixed: int

    def of(self, columns: Iterable[int]) -> Cells:
        """The table with its fixed columns and, of the others, only ``columns``."""
        numbers = [*range(self.fixed), *columns]

        def chosen(row: list[str]) -> list[str]:
            return [row[number] for number in numbers]

        body, footer = ([chosen(row) for row in rows] for rows in (self.body, self.footer))
        return Cells(chosen(self.header), body, footer, self.words, self.fixed)


def label_heads(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """The headings of rows and of columns for a table with a row and a column for each label.

    Short labels head both. If a label is longer, columns are headed by the labels' numbers, and
    rows by number and label.
    """
    rows = [printable(label) for label in labels]
    if max(map(len, rows)) <= (SHORT_OF_FEW if len(rows) <= FEW else SHORT):
        return rows, rows
    numbers = [str(number) for number in range(1, len(rows) + 1)]
    return [f"{number}. {row}" for number, row in zip(numbers, rows, strict=True)], numbers


# --- numbers ------------------------------------------------------------------------------


def interval(estimate: Interval, *, sign: bool = False) -> str:
    """A figure with its interval, if it has one, such as ``0.512 (0.480 to 0.544)``."""
    value = signed(estimate.value) if sign else number(estimate.value)
    bracket = ends(estimate.low, estimate.high, sign=sign)
    return f"{value} ({bracket})" if bracket and estimate.value is not None else value


def difference(estimate: Difference | None) -> str:
    """A difference with its `mark` and interval, such as ``+0.020* (+0.002 to +0.038)``."""
    if estimate is None or estimate.value is None:
        return NONE
    value, bracket, rest = interval(estimate, sign=True).partition(" (")
    sign = mark(estimate)
    return f"{value}{sign or (' ' if bracket else '')}{bracket}{rest}"


def score(figure: Score | None, run: str) -> str:
    """Mean over n seeds and their standard deviation, such as ``0.554, seeds ±0.012, n=5``.

    Args:
        figure: The score.
        run: The word for a seed.
    """
    if figure is None or figure.value is None:
        return NONE
    spread = f", {run}s ±{figure.seed_sd:.3f}" if figure.seed_sd is not None else ""
    return f"{number(figure.value)}{spread}, n={len(figure.by_seed)}"


def gap(share: Gap) -> str:
    """The Fieller confidence set of a ratio in words, such as ``0.20 to 1.30``."""
    if share.kind == "everything" or share.low is None or share.high is None:
        return "no value is excluded"
    if share.kind == "outside":
        return f"up to {share.low:.2f}, or {share.high:.2f} and more"
    return f"{share.low:.2f} to {share.high:.2f}"


# --- what was compared, in words ----------------------------------------------------------


def caption(comparison: Comparison) -> str:
    """The data, the settings and the seeds in one line."""
    return f"{about_data(comparison)}, {settings_of(comparison)}, {_seeds(comparison)}"


def settings_of(comparison: Comparison) -> str:
    """The number of settings, such as ``3 of 18 settings``, or of tasks, such as ``2 tasks``."""
    return some_settings(len(comparison.settings), comparison.settings_in_paper)


def _seeds(comparison: Comparison) -> str:
    counts = sorted({len(seeds) for seeds in comparison.seeds.values()})
    several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{several} {run_noun(comparison)}{'s' if counts[-1] > 1 else ''} per arm"


def interval_scope(comparison: Comparison) -> str:
    """Level and scope of the differences' intervals; empty where there are no intervals."""
    arms: dict[str, list[str]] = {}
    for arm, pooled in comparison.pooled.items():
        if scope := next((one.over for one in pooled.values() if one.over), None):
            arms.setdefault(scope, []).append(arm)
    which = "; ".join(
        _over(comparison, kind) + ("" if len(arms) == 1 else f": {', '.join(names)}")
        for kind, names in arms.items()
    )
    return which and f"{100 * comparison.level:g} % intervals {which}"


def _over(comparison: Comparison, scope: str) -> str:
    return OVER[scope].format(run=run_noun(comparison), these_models=these_models(comparison))


def legend(comparison: Comparison) -> list[str]:
    """The meaning of the intervals, the marks and the footer, one sentence each."""
    intervals = interval_scope(comparison)
    main = title_of(comparison, comparison.main)
    return [
        *([f"In brackets: {intervals}."] if intervals else []),
        *mark_legend(comparison),
        *_columns_legend(comparison),
        f"detectable: smallest true pooled difference in {main} that this number of "
        f"documents and {run_noun(comparison)}s would show with a probability of "
        f"{comparison.power:g}; in brackets its interval, as it is estimated from this sample.",
    ]


def _columns_legend(comparison: Comparison) -> list[str]:
    if comparison.protocol == "logged":
        return [
            "n: number of documents; metric: the task's first metric, which is its score.",
            "wins: number of tasks with a positive difference, however small.",
        ]
    return [
        "n: number of test documents; majority: accuracy of predicting the most frequent label.",
        "wins: number of settings with a positive difference in accuracy, however small.",
    ]


def mark_legend(comparison: Comparison) -> list[str]:
    """The meaning of the marks behind a difference, one sentence each."""
    return [
        f"{FOUND}: {STAR}.",
        f"{SAME}: the difference is found to be within ±{margin_text(comparison)}.",
        f"{EXPLORATORY}: exploratory, makes no claim. No mark: not enough to tell.",
    ]


def title_of(comparison: Comparison, metric: str) -> str:
    """The title of a metric, such as ``accuracy`` for ``acc``."""
    return metric_of(comparison, metric).title


def setting_title(setting: Setting) -> str:
    """Dataset and axis, such as ``CoQA: naturalness``; of any task of lm_eval, its name."""
    # A user's own task has only the axis "label", which is not worth naming.
    if setting.axis == "label":
        return setting.title
    # (The name of a task of lm_eval is enough without its group.)
    if setting.axis == setting.task:
        return setting.axis_title
    return f"{setting.title}: {setting.axis_title}"


# --- tables -------------------------------------------------------------------------------


def arms(comparison: Comparison) -> Cells:
    """A row for each arm: score, difference and finding; the primary question's arm is first."""
    c, metric, run = comparison, comparison.main, run_noun(comparison)
    base = c.pooled_scores[c.baseline].get(metric)
    body = []
    for arm in sorted(c.arms, key=lambda arm: not is_primary(c, arm, metric)):
        one = c.pooled[arm].get(metric, Difference(value=None))
        role = " (primary)" if is_primary(c, arm, metric) else ""
        body.append(
            [
                arm,
                score(c.pooled_scores[arm].get(metric), run),
                difference(one),
                claim(c, one, metric) + role,
                detectable(c, arm),
            ]
        )
    body.append([c.baseline, score(base, run), NONE, "baseline", NONE])
    header = ["arm", title_of(c, metric), "difference", "finding", "detectable"]
    return Cells(header, body, [], words=1, fixed=1)


def by_setting(comparison: Comparison) -> Cells:
    """A row for each setting: the baseline's score in the main metric, and all differences."""
    c, metric = comparison, comparison.main
    logged, about_accuracy = c.protocol == "logged", metric == "acc"

    def majority_of(setting: Setting) -> float | None:
        return setting.majority_acc if about_accuracy else None

    body = []
    for setting in c.settings:
        task = setting.task
        own = metric if setting.pooled else setting.metrics[0]
        base = c.scores[c.baseline][task].get(own)
        body.append(
            [
                setting.dataset,
                setting.axis_title,
                str(setting.documents),
                setting.metrics[0]
                if logged
                else number(setting.majority_acc if about_accuracy else None),
                number(base.value if base else None),
                *(difference(c.differences[arm][task].get(own)) for arm in c.arms),
            ]
        )
    majority = [one.majority_acc for one in c.settings if one.majority_acc is not None]
    base = c.pooled_scores[c.baseline].get(metric)
    footer = [
        [
            *("pooled", "", ""),
            number(sum(majority) / len(majority) if about_accuracy and not logged else None),
            number(base.value if base else None),
            *(difference(c.pooled[arm].get(metric)) for arm in c.arms),
        ],
        ["wins", "", "", "", "", *(wins(c, arm) for arm in c.arms)]
        if about_accuracy or logged
        else [],
        ["detectable", "", "", "", "", *(detectable(c, arm) for arm in c.arms)],
    ]
    first = ["group", "task", "n", "metric"] if logged else ["dataset", "axis", "n", "majority"]
    header = [*first, c.baseline, *c.arms]
    return Cells(header, body, [row for row in footer if row], words=2, fixed=5)


def task_groups(comparison: Comparison) -> Cells:
    """A row for each group of lm_eval's tasks: the baseline's score, and all differences."""
    c = comparison
    body = [
        [
            one.name,
            str(len(one.tasks)),
            str(one.documents),
            number(one.scores[c.baseline].value),
            *(difference(one.differences[arm]) for arm in c.arms),
        ]
        for one in c.task_groups
    ]
    header = ["group", "tasks", "documents", c.baseline, *c.arms]
    return Cells(header, body, [], words=1, fixed=4)


def about_task_groups(comparison: Comparison) -> str:
    """The caption of `task_groups`."""
    metric = title_of(comparison, comparison.main)
    return f"Mean {metric} over all documents of a group of tasks; exploratory."


def wins(comparison: Comparison, arm: str) -> str:
    """Settings in which the arm's accuracy is above the baseline's, as ``12 of 18 (2 tied)``."""
    tally = comparison.wins[arm]
    ties = f" ({tally.ties} tied)" if tally.ties else ""
    return f"{tally.wins} of {tally.of}{ties}"


def detectable(comparison: Comparison, arm: str) -> str:
    """The smallest detectable pooled difference in the main metric, with its interval."""
    known = comparison.detectable.get(arm)
    return interval(known) if known else NONE


def contrasts(comparison: Comparison) -> Cells | None:
    """Differences between arms in the main metric: the row's arm minus the column's arm."""
    metric = comparison.main
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
    """A row for each metric: the baseline's mean over the settings, and all differences."""
    body = []
    for name in comparison.metrics:
        metric = metric_of(comparison, name)
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
    header = ["pooled metric", "better", comparison.baseline, *comparison.arms]
    return Cells(header, body, [], words=2, fixed=3)


# By field of `Cost`: the title of its row, and the divisor from the field's unit to the row's.
_COSTS = {
    "training_seconds": ("training (seconds)", 1),
    "training_tokens": ("tokens read in training", 1),
    "scoring_ms": ("scoring (ms per document)", 1),
    "peak_memory_mib": ("peak main memory (GiB)", 1024),
    "peak_gpu_mib": ("peak GPU memory (GiB)", 1024),
}


def costs(comparison: Comparison) -> Cells:
    """A row for each kind of cost that at least one arm has recorded; possibly no rows."""
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
    return Cells(["per model", *everyone], body, [], words=1, fixed=2)


def _amount(value: float | None, unit: int) -> str:
    """The value in the row's unit, with three significant digits; from 100 on, rounded to ones."""
    if value is None:
        return NONE
    value /= unit
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def about_costs(comparison: Comparison) -> str:
    """A sentence on how and where the costs were measured."""
    machines = sorted({one for cost in comparison.costs.values() for one in cost.machines})
    return (
        "Costs are means over an arm's models, measured once, on "
        f"{' and '.join(machines)}. Processes that ran side by side on one machine slowed each "
        "other down."
    )


def generalisation(comparison: Comparison) -> Cells:
    """A row for each arm: label loss on train rows and on test rows, and the gap between them."""
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
    """The figure with the mark for exploratory: it makes no claim, whatever its interval is."""
    return difference(Difference(value=figure.value, low=figure.low, high=figure.high))


def about_generalisation(comparison: Comparison) -> str:
    """The caption of `generalisation`: what was measured, and the meaning of the gap."""
    first, *_ = comparison.generalisation.values()
    scopes = dict.fromkeys(
        _over(comparison, one.over) for one in comparison.generalisation.values() if one.over
    )
    intervals = f", with {100 * comparison.level:g} % intervals {' or '.join(scopes)}"
    return (
        f"Label loss ({METRICS['nll'].title}, {METRICS['nll'].unit}) on {first.train_documents:,} "
        f"train and {first.test_documents:,} test rows{intervals if scopes else ''}. The gap is "
        "test minus train: a model that overfits has a smaller loss on the rows that it was "
        "trained on. These figures are exploratory and make no claim."
    )


def own_settings(comparison: Comparison) -> list[Setting]:
    """The settings that get a table by label: those with labels that are a user's own."""
    if comparison.settings_in_paper is not None or comparison.protocol == "logged":
        return []
    return [setting for setting in comparison.settings if setting.label_names]


def by_label(comparison: Comparison, setting: Setting) -> Cells:
    """A row for each label: each arm's precision and recall, such as ``0.56 / 0.62``."""
    everyone = [comparison.baseline, *comparison.arms]
    by_arm = [comparison.classes[arm][setting.task] for arm in everyone]
    body = [
        [name, str(count), *(f"{number(of.precision, 2)} / {number(of.recall, 2)}" for of in row)]
        for name, count, *row in zip(setting.label_names, setting.labels, *by_arm, strict=True)
    ]
    return Cells(["label", "n", *everyone], body, [], words=1, fixed=3)
