"""Whether a candidate is not worse than a baseline by more than is allowed.

This is a test of non-inferiority. "No significant difference" passes whatever was measured badly
enough; here a pass has to be shown: the lower bound of the change lies above the drop that is
allowed. Where neither that nor the opposite is shown, the gate does not decide.

Several requirements, such as one for each setting or a floor under the candidate's own metric, are
an intersection-union test (Berger, Technometrics 24, 1982, 295-300): a pass needs each of them
shown at alpha, and so needs no correction. A fail needs one of them shown to be missed, so that of
m requirements each is held at alpha / m (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from regreason_plugin.comparison.comparability import check_comparable, tasks_of
from regreason_plugin.comparison.gate_bounds import Bounded
from regreason_plugin.comparison.gate_parts import (
    MEANS,
    Measured,
    Part,
    everything,
    measure,
    parts_of,
    turned,
)
from regreason_plugin.comparison.planned_looks import Look
from regreason_plugin.comparison.task_scores import TaskScores, read_tasks
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.samples import samples_file
from regreason_plugin.evaluate.scoring_notes import scoring_notes
from regreason_plugin.evaluate.task_results import TaskResult
from regreason_plugin.metrics.answers import Array

Verdict = Literal["pass", "fail", "undecided"]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "undecided": 3}


@dataclass(frozen=True)
class Rule:
    """What is asked of a candidate.

    Attributes:
        metric: One of `metric_names.GATED`.
        max_drop: What a worsening may be, in the metric's unit, 0 or more.
        limit: What the candidate's metric has to be above, or below where lower is better; None
            where its own value is not asked about.
        per: As `gate_parts.parts_of`; None where all documents together decide.
        alpha: How often a pass may be wrong, and a fail likewise.
        look: Which of several planned looks this is; None of a single test.
    """

    metric: str = "acc"
    max_drop: float = 0.01
    limit: float | None = None
    per: str | None = None
    alpha: float = 0.05
    look: Look | None = None

    @property
    def alpha_now(self) -> float:
        """Alpha of a bound at this look."""
        return self.look.alpha if self.look else self.alpha


@dataclass(frozen=True)
class Requirement:
    """Something that has to be above a limit, turned round where lower is better.

    Attributes:
        value: What was seen; None without documents.
        low: Its lower one-sided bound at alpha; None where nothing is known of it.
        high: Its upper one-sided bound at alpha over the number of requirements, likewise.
        limit: What it has to be above.
    """

    value: float | None
    low: float | None
    high: float | None
    limit: float

    @property
    def verdict(self) -> Verdict:
        """pass: the lower bound is above the limit; fail: the upper one is below it."""
        if self.low is not None and self.low > self.limit:
            return "pass"
        return "fail" if self.high is not None and self.high < self.limit else "undecided"

    @property
    def margin(self) -> float:
        """How far the lower bound is above the limit."""
        return -np.inf if self.low is None else self.low - self.limit


@dataclass(frozen=True)
class Row:
    """The metric in a part of the documents, or over all of them.

    Attributes:
        name: Of the part, in words.
        key: The same as a program names it; "all" for all documents.
        documents: How many were answered.
        groups: In how many groups they come.
        effective_groups: How many groups of one size would say as much.
        baseline: The baseline's metric; None without documents.
        candidate: The candidate's.
        change: The latter minus the former, which has to be above -max_drop.
        level: The candidate's, which has to be above a limit; None where that is not asked.
    """

    name: tuple[str, str]
    key: str
    documents: int
    groups: int
    effective_groups: float
    baseline: float | None
    candidate: float | None
    change: Requirement
    level: Requirement | None

    @property
    def requirements(self) -> list[Requirement]:
        """What is asked of the part."""
        return [self.change, *([self.level] if self.level else [])]

    @property
    def verdict(self) -> Verdict:
        """Of all that is asked of the part."""
        return _together([one.verdict for one in self.requirements])


@dataclass(frozen=True)
class Decision:
    """What the gate found.

    Attributes:
        rule: What was asked.
        requirements: How many there are, which a fail is corrected for.
        overall: Over all documents.
        parts: One by one; they decide with ``overall`` if the rule has ``per``, and are the
            settings, for information, if it has not.
        baseline: Which model it is.
        candidate: Likewise.
        notes: What the way they were scored does to the numbers, a sentence each.
    """

    rule: Rule
    requirements: int
    overall: Row
    parts: list[Row]
    baseline: Run
    candidate: Run
    notes: list[str]

    @property
    def gated(self) -> list[Row]:
        """The rows that decide."""
        return [*(self.parts if self.rule.per else []), self.overall]

    @property
    def verdict(self) -> Verdict:
        """pass: all that is asked is shown; fail: something is shown to be missed."""
        return _together([row.verdict for row in self.gated])

    @property
    def deciding(self) -> tuple[Row, Requirement]:
        """What the verdict hangs on: of the requirements with this verdict the nearest to a miss.

        All documents come before a part that is as near.
        """
        candidates = [
            (row, one)
            for row in reversed(self.gated)
            for one in row.requirements
            if one.verdict == self.verdict
        ]
        return min(candidates, key=lambda pair: pair[1].margin)


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    if "fail" in verdicts:
        return "fail"
    return "undecided" if "undecided" in verdicts else "pass"


def decide(baseline: Run, candidate: Run, rule: Rule) -> Decision:
    """Hold a candidate's results against a baseline's.

    Args:
        baseline: With samples.
        candidate: Likewise, of the same documents.
        rule: What is asked.

    Raises:
        UserError: The two are the same results, or not of the same documents scored in the same
            way, or have a single group; or the metric or a part is undefined.
    """
    _check_two_models(baseline, candidate)
    check_comparable(baseline, [candidate], same_tasks=True)
    tasks = tasks_of(baseline)
    for task in tasks:
        _check_metric(baseline.tasks[task], rule.metric)
    scores = read_tasks((baseline, candidate), tasks)
    _check_defined(scores, rule.metric, baseline, candidate)
    parts = parts_of(scores, rule.per or "setting", baseline, rule.metric)
    asked = (1 if rule.limit is None else 2) * (1 + len(parts) if rule.per else 1)
    return Decision(
        rule=rule,
        requirements=asked,
        overall=_row(everything(scores), rule, asked),
        parts=[_row(part, rule, asked) for part in parts],
        baseline=baseline,
        candidate=candidate,
        notes=scoring_notes((baseline, candidate), [list(one.probabilities) for one in scores]),
    )


def _row(part: Part, rule: Rule, asked: int) -> Row:
    measured: Measured = measure(part, rule.metric)
    sign = turned(rule.metric)
    first, second = measured.values or (None, None)
    seen = None if first is None or second is None else sign * (second - first)
    level = None
    if rule.limit is not None:
        own = None if second is None else sign * second
        level = _required(measured.level, own, sign * rule.limit, rule, asked)
    return Row(
        name=part.name,
        key=part.key,
        documents=measured.documents,
        groups=measured.groups,
        effective_groups=measured.effective_groups,
        baseline=first,
        candidate=second,
        change=_required(measured.change, seen, -rule.max_drop, rule, asked),
        level=level,
    )


def _required(
    bounded: Bounded | None, value: float | None, limit: float, rule: Rule, asked: int
) -> Requirement:
    low = high = None
    if bounded:
        low = _finite(bounded.bounds(rule.alpha_now)[0])
        high = _finite(bounded.bounds(rule.alpha_now / asked)[1])
    return Requirement(value, low, high, limit)


def _finite(bound: Array) -> float | None:
    """None where so few groups say nothing."""
    return float(bound) if np.isfinite(bound) else None


def _check_two_models(baseline: Run, candidate: Run) -> None:
    first, second = (
        {result.source.resolve() for result in run.tasks.values()} for run in (baseline, candidate)
    )
    if shared := first & second:
        raise UserError(
            "baseline and candidate are the same results; name two models' folders",
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
    if len({*everything(scores).groups}) < 2:
        count = sum(len(one.ids) for one in scores)
        raise UserError(
            f"has {count} document{'s' * (count > 1)} of one group, and how sure a change is "
            "shows only between groups; score more documents",
            path=baseline.folder,
        )
    for one in scores:
        known = len(one.sums.groups) > 1 and np.isfinite(one.statistics[metric].influence).all()
        if metric not in MEANS and not known:
            how = "without one of its groups; score more documents, or use --metric acc"
            raise undefined(one, how)
