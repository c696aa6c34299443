"""Whether a candidate is not worse than a baseline by more than is allowed.

This is a test of non-inferiority. "No significant difference" passes whatever was measured badly
enough; here a pass has to be shown: the lower bound of the change lies above the drop that is
allowed. Where neither that nor the opposite is shown, the gate does not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from regreason_plugin.compare.comparability import check_comparable, tasks_of
from regreason_plugin.compare.gate_bounds import (
    Change,
    accuracy_change,
    metric_change,
    times_needed,
)
from regreason_plugin.compare.task_scores import TaskScores, read_tasks
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import Run, TaskResult
from regreason_plugin.evaluate.samples import samples_file
from regreason_plugin.evaluate.scoring_notes import scoring_notes
from regreason_plugin.evaluate.task_setting import TaskSetting
from regreason_plugin.metrics.metric_names import METRICS

Verdict = Literal["pass", "fail", "undecided"]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "undecided": 3}


@dataclass(frozen=True)
class Row:
    """The metric in one setting, or over all documents.

    Attributes:
        dataset: Of the setting; "all" for all documents.
        axis: Likewise; empty for all documents.
        title: Of the dataset, for a reader.
        axis_title: Of the axis, likewise.
        documents: How many were answered.
        groups: In how many groups they come.
        baseline: The baseline's metric.
        candidate: The candidate's.
        change: The latter minus the former, turned round where lower is better.
        low: Its lower one-sided bound; None with a single group.
        high: Its upper one-sided bound, likewise.
    """

    dataset: str
    axis: str
    title: str
    axis_title: str
    documents: int
    groups: int
    baseline: float
    candidate: float
    change: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Decision:
    """What the gate found.

    Attributes:
        verdict: pass: the lower bound of the change is above -max_drop; fail: the upper one is
            below it; undecided: neither.
        metric: Its key.
        max_drop: What a worsening may be.
        alpha: How often a pass or a fail may be wrong.
        overall: Over all documents, which decides.
        settings: One by one, for information.
        times: How many times as many documents would decide; None where it is decided, or no
            number is enough.
        baseline: Which model it is.
        candidate: Likewise.
        notes: What the way they were scored does to the numbers, a sentence each.
    """

    verdict: Verdict
    metric: str
    max_drop: float
    alpha: float
    overall: Row
    settings: list[Row]
    times: float | None
    baseline: Run
    candidate: Run
    notes: list[str]


def decide(
    baseline: Run, candidate: Run, metric: str = "acc", max_drop: float = 0.01, alpha: float = 0.05
) -> Decision:
    """Hold a candidate's results against a baseline's.

    Args:
        baseline: With samples.
        candidate: Likewise, of the same documents.
        metric: One of `metric_names.GATED`.
        max_drop: What a worsening may be, in the metric's unit, 0 or more.
        alpha: Of each one-sided bound.

    Raises:
        UserError: The two are the same results, or not of the same documents scored in the same
            way, or have a single group; or the metric is undefined.
    """
    _check_two_models(baseline, candidate)
    check_comparable(baseline, [candidate], same_tasks=True)
    tasks = tasks_of(baseline)
    for task in tasks:
        _check_metric(baseline.tasks[task], metric)
    scores = read_tasks((baseline, candidate), tasks)
    _check_defined(scores, metric, baseline, candidate)
    overall = _row(scores, metric, alpha)
    verdict, times = _verdict(overall, max_drop), None
    if verdict == "undecided":
        times = times_needed(_change(scores, metric), max_drop, alpha)
    return Decision(
        verdict=verdict,
        metric=metric,
        max_drop=max_drop,
        alpha=alpha,
        overall=overall,
        settings=[_row([one], metric, alpha, one.setting) for one in scores],
        times=times,
        baseline=baseline,
        candidate=candidate,
        notes=scoring_notes((baseline, candidate), [list(one.probabilities) for one in scores]),
    )


def _check_two_models(baseline: Run, candidate: Run) -> None:
    first, second = (
        {result.source.resolve() for result in run.tasks.values()} for run in (baseline, candidate)
    )
    if shared := first & second:
        raise UserError(
            "--baseline and --candidate are the same results; name two models' folders",
            path=min(shared),
        )


def _check_metric(result: TaskResult, metric: str) -> None:
    """Refuse a metric that the labels of a task do not have."""
    count, lacks = len(result.setting.labels), ""
    if metric in ("qwk", "mae") and not result.setting.ordinal:
        lacks = f"needs labels with an order, and those of {result.task} have none"
    if metric == "auroc" and count != 2:
        lacks = f"needs two labels, and {result.task} has {count}"
    if lacks:
        raise UserError(
            f"{metric} {lacks}; use --metric acc or --metric macro_f1", path=result.source
        )


def _check_defined(
    scores: Sequence[TaskScores], metric: str, baseline: Run, candidate: Run
) -> None:
    """Refuse what nothing can be said of: how groups vary is seen from two or more."""

    def undefined(one: TaskScores, how: str) -> UserError:
        return UserError(
            f"{metric} of {one.task} is undefined {how}",
            path=samples_file(candidate.tasks[one.task]),
        )

    for one in scores:
        if not np.isfinite(one.statistics[metric].values).all():
            how = "for one of the models; score more documents, or use --metric acc"
            raise undefined(one, how)
    if len({*_groups_of(scores)}) < 2:
        count = sum(len(one.ids) for one in scores)
        raise UserError(
            f"has {count} document{'s' * (count > 1)} of one group, and how sure a change is "
            "shows only between groups; score more documents",
            path=baseline.folder,
        )
    for one in scores:
        known = len(one.sums.groups) > 1 and np.isfinite(one.statistics[metric].influence).all()
        if metric != "acc" and not known:
            how = "without one of its groups; score more documents, or use --metric acc"
            raise undefined(one, how)


def _groups_of(scores: Sequence[TaskScores]) -> list[str]:
    """The group of each document; of another data folder none is the same."""
    return [f"{one.folder} {name}" for one in scores for name in one.groups]


def _change(scores: Sequence[TaskScores], metric: str) -> Change:
    """The metric's change over some tasks, each counted by its documents."""
    groups, member = np.unique(_groups_of(scores), return_inverse=True)
    sizes = np.bincount(member).astype(np.float64)
    if metric == "acc":
        gains = np.concatenate([one.values["acc"][1] - one.values["acc"][0] for one in scores])
        wins, losses = (
            np.bincount(member, np.maximum(x, 0)).astype(np.float64) for x in (gains, -gains)
        )
        return accuracy_change(wins, losses, sizes)
    value, influence = 0.0, np.zeros(len(groups))
    for one in scores:
        values, of_group = one.statistics[metric]
        weight = _turned(metric) * len(one.ids) / len(member)
        value += weight * float(values[1] - values[0])
        place = np.searchsorted(groups, [f"{one.folder} {name}" for name in one.sums.groups])
        influence[place] += weight * (of_group[1] - of_group[0]) / len(place)
    return metric_change(np.asarray(value), influence, sizes)


def _row(
    scores: Sequence[TaskScores], metric: str, alpha: float, setting: TaskSetting | None = None
) -> Row:
    documents = sum(len(one.ids) for one in scores)
    first, second = (
        float(
            sum(one.statistics[metric].values[model] * len(one.ids) for one in scores) / documents
        )
        for model in (0, 1)
    )
    groups = len({*_groups_of(scores)})
    low = high = None
    if groups > 1:
        low, high = (float(bound) for bound in _change(scores, metric).bounds(alpha))
    return Row(
        dataset=setting.dataset if setting else "all",
        axis=setting.axis if setting else "",
        title=setting.title if setting else "all",
        axis_title=setting.axis_title if setting else "",
        documents=documents,
        groups=groups,
        baseline=first,
        candidate=second,
        change=_turned(metric) * (second - first),
        low=low,
        high=high,
    )


def _turned(metric: str) -> int:
    return -1 if METRICS[metric].better == "lower" else 1


def _verdict(row: Row, max_drop: float) -> Verdict:
    assert row.low is not None
    assert row.high is not None
    if row.low > -max_drop:
        return "pass"
    return "fail" if row.high < -max_drop else "undecided"
