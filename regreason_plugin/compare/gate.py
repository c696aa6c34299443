"""Whether a candidate is not worse than a baseline by more than is allowed.

This is a test of non-inferiority. "No significant difference" passes whatever was measured badly
enough; here a pass has to be shown: the lower bound of the change lies above the drop that is
allowed. Where neither that nor the opposite is shown, the gate does not decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from regreason_plugin.compare.comparability import (
    check_comparable,
    check_same_answers,
    tasks_of,
)
from regreason_plugin.compare.gate_bounds import (
    Change,
    accuracy_change,
    metric_change,
    times_needed,
)
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import Run, TaskResult
from regreason_plugin.evaluate.samples import read_answers
from regreason_plugin.evaluate.scoring_notes import scoring_notes
from regreason_plugin.evaluate.task_setting import TaskSetting
from regreason_plugin.metrics.answers import Answers, Array
from regreason_plugin.metrics.group_sums import statistics_of, sums_of
from regreason_plugin.metrics.metric_names import METRICS

# Those of which it can be said which way is better, and that need no probes.
GATED = ("acc", "macro_f1", "qwk", "mae", "auroc", "nll", "ece")
Verdict = Literal["pass", "fail", "undecided"]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "undecided": 3}


@dataclass(frozen=True)
class _Pair:
    """Both models' answers in one task, and what they are worth.

    Attributes:
        answers: The baseline's and the candidate's.
        members: The group of each document; of another data folder none is the same.
        groups: The names of the groups.
        values: The metric of each, ``[2]``.
        influence: Of each group, ``[2, groups]``, averaging zero.
    """

    answers: tuple[Answers, Answers]
    members: list[str]
    groups: list[str]
    values: Array
    influence: Array

    @property
    def documents(self) -> int:
        """How many there are."""
        return len(self.answers[0].ids)


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
        metric: One of `GATED`.
        max_drop: What a worsening may be, in the metric's unit, 0 or more.
        alpha: Of each one-sided bound.

    Raises:
        UserError: The two are the same results, or not of the same documents scored in the same
            way, or have a single group; or the metric is undefined.
    """
    pairs = _pairs(baseline, candidate, metric)
    _check_groups(baseline, list(pairs.values()), metric)
    rows = [
        _row([pair], metric, alpha, baseline.tasks[task].setting) for task, pair in pairs.items()
    ]
    every = list(pairs.values())
    overall = _row(every, metric, alpha)
    verdict = _verdict(overall, max_drop)
    return Decision(
        verdict=verdict,
        metric=metric,
        max_drop=max_drop,
        alpha=alpha,
        overall=overall,
        settings=rows,
        times=times_needed(_change(every, metric), max_drop, alpha)
        if verdict == "undecided"
        else None,
        baseline=baseline,
        candidate=candidate,
        notes=scoring_notes(
            (baseline, candidate),
            [[answers.log_probabilities for answers in pair.answers] for pair in every],
        ),
    )


def _pairs(baseline: Run, candidate: Run, metric: str) -> dict[str, _Pair]:
    """The answers of both, by task in the order of the settings, checked to be of one kind."""
    if shared := {result.source.resolve() for result in baseline.tasks.values()} & {
        result.source.resolve() for result in candidate.tasks.values()
    }:
        raise UserError(
            "baseline and candidate are the same results; name two models' folders",
            path=min(shared),
        )
    check_comparable(baseline, [candidate], same_tasks=True)
    for task in tasks_of(baseline):
        _check_metric(baseline.tasks[task], metric)
    return {task: _pair(baseline, candidate, task, metric) for task in tasks_of(baseline)}


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


def _pair(baseline: Run, candidate: Run, task: str, metric: str) -> _Pair:
    answers = read_answers(baseline.tasks[task]), read_answers(candidate.tasks[task])
    check_same_answers(*answers, (baseline.name, candidate.name))
    sums = sums_of(answers)
    values, influence = statistics_of(sums)[metric]
    if not np.isfinite(values).all():
        raise UserError(
            f"{metric} of {task} is undefined for one of the models; score more documents, or "
            "use --metric acc",
            path=answers[1].source,
        )
    folder = baseline.tasks[task].data["sha256"]
    members, groups = (
        [f"{folder} {name}" for name in names] for names in (answers[0].groups, sums.groups)
    )
    return _Pair(answers, members, groups, values, influence)


def _check_groups(baseline: Run, pairs: list[_Pair], metric: str) -> None:
    """Refuse what nothing can be said of: how groups vary is seen from two or more."""
    if len({group for pair in pairs for group in pair.groups}) < 2:
        count = sum(pair.documents for pair in pairs)
        raise UserError(
            f"has {count} document{'s' * (count > 1)} of one group, and how sure a change is "
            "shows only between groups; score more documents",
            path=baseline.folder,
        )
    for pair in pairs:
        one = len(pair.groups) < 2
        if metric != "acc" and (one or not np.isfinite(pair.influence).all()):
            raise UserError(
                f"{metric} of {pair.answers[0].task} is undefined without one of its groups; "
                "score more documents, or use --metric acc",
                path=pair.answers[1].source,
            )


def _change(pairs: list[_Pair], metric: str) -> Change:
    """The metric's change over some tasks, each counted by its documents."""
    names = np.array([group for pair in pairs for group in pair.members])
    groups, member = np.unique(names, return_inverse=True)
    sizes = np.bincount(member).astype(np.float64)
    if metric == "acc":
        gains = np.concatenate(
            [pair.answers[1].correct - pair.answers[0].correct for pair in pairs]
        )
        wins, losses = (
            np.bincount(member, np.maximum(x, 0)).astype(np.float64) for x in (gains, -gains)
        )
        return accuracy_change(wins, losses, sizes)
    value, influence = 0.0, np.zeros(len(groups))
    for pair in pairs:
        weight = _turned(metric) * pair.documents / len(names)
        value += weight * float(pair.values[1] - pair.values[0])
        place = np.searchsorted(groups, pair.groups)
        influence[place] += weight * (pair.influence[1] - pair.influence[0]) / len(place)
    return metric_change(np.asarray(value), influence, sizes)


def _row(pairs: list[_Pair], metric: str, alpha: float, setting: TaskSetting | None = None) -> Row:
    documents = sum(pair.documents for pair in pairs)
    first, second = (
        float(sum(pair.values[place] * pair.documents for pair in pairs) / documents)
        for place in (0, 1)
    )
    groups = len({group for pair in pairs for group in pair.groups})
    low = high = None
    if groups > 1:
        low, high = (float(bound) for bound in _change(pairs, metric).bounds(alpha))
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
