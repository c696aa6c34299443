"""Decide whether a candidate is worse than a baseline by more than an allowed drop.

The gate is a non-inferiority test. A rule such as "no significant difference" passes any candidate
if the test set is small enough. This gate passes a candidate only if the data show it: the lower
confidence bound of the change lies above minus the allowed drop. If the data show neither a pass
nor a fail, the gate is undecided.

Several requirements, such as one per setting or a floor for the candidate's own metric, form an
intersection-union test (Berger, Technometrics 24, 1982, 295-300): a pass needs every requirement
shown at alpha, which needs no correction. A fail needs only one requirement shown to be missed, so
each of m requirements is tested at alpha / m (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from regreason_plugin.comparison.comparability import check_comparable, tasks_of
from regreason_plugin.comparison.gate_bounds import Bounded
from regreason_plugin.comparison.gate_parts import (
    Measured,
    Part,
    everything,
    measure,
    parts_of,
    turned,
)
from regreason_plugin.comparison.planned_looks import Look
from regreason_plugin.comparison.task_scores import TaskScores, read_tasks, scores_of
from regreason_plugin.core.errors import UserError
from regreason_plugin.data_folder.folder import absence_note
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.samples import samples_file
from regreason_plugin.evaluate.scoring_notes import scoring_notes
from regreason_plugin.evaluate.task_results import TaskResult
from regreason_plugin.metrics.answers import Array
from regreason_plugin.metrics.metric_names import Metric

Verdict = Literal["pass", "fail", "undecided"]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "undecided": 3}


@dataclass(frozen=True)
class Rule:
    """The requirements on a candidate.

    Attributes:
        metric: One of `metric_names.GATE_METRICS`; on any tasks of lm_eval, a metric that they
            have, or `metric_names.SCORE` for the first one of each task.
        max_drop: The non-inferiority margin: the largest worsening allowed, in the metric's unit,
            0 or more.
        limit: The value that the candidate's metric must exceed, or stay below if lower is better;
            None without such a limit.
        ceiling: Whether ``limit`` is a value to stay below; None if the metric's direction decides.
        per: How `gate_parts.parts_of` divides the documents; None if only all documents together
            decide.
        alpha: The error rate of a pass, and of a fail.
        look: The current one of several planned looks; None for a single test.
        tasks: Patterns of the tasks of lm_eval, or groups of tasks, that the rule is about; empty
            for all.
    """

    metric: str = "acc"
    max_drop: float = 0.01
    limit: float | None = None
    ceiling: bool | None = None
    per: str | None = None
    alpha: float = 0.05
    look: Look | None = None
    tasks: tuple[str, ...] = ()

    @property
    def alpha_now(self) -> float:
        """The alpha of a confidence bound at this look."""
        return self.look.alpha if self.look else self.alpha


@dataclass(frozen=True)
class Requirement:
    """A value that must exceed a limit; both change sign if lower is better.

    Attributes:
        value: The observed value; None without documents.
        low: Lower one-sided confidence bound of the value at alpha; None if there are too few
            groups for a bound.
        high: Upper one-sided confidence bound of the value at alpha divided by the number of
            requirements; None if there are too few groups for a bound.
        limit: The limit that the value must exceed.
    """

    value: float | None
    low: float | None
    high: float | None
    limit: float

    @property
    def verdict(self) -> Verdict:
        """pass: the lower bound is above the limit; fail: the upper bound is below the limit."""
        if self.low is not None and self.low > self.limit:
            return "pass"
        return "fail" if self.high is not None and self.high < self.limit else "undecided"

    @property
    def margin(self) -> float:
        """The lower bound minus the limit; minus infinity without a bound."""
        return -np.inf if self.low is None else self.low - self.limit


@dataclass(frozen=True)
class Row:
    """The metric in one part of the documents, or in all documents.

    Attributes:
        name: The name of the part in words.
        key: The name of the part for programs; "all" for all documents.
        documents: The number of documents.
        groups: The number of their groups.
        effective_groups: The effective number of groups: groups of equal size that would give the
            same precision.
        baseline: The baseline's metric; None without documents.
        candidate: The candidate's metric; None without documents.
        change: The candidate's metric minus the baseline's, which must exceed -max_drop.
        level: The candidate's metric, which must exceed a limit; None if the rule has no limit.
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
        """The requirements on this part."""
        return [self.change, *([self.level] if self.level else [])]

    @property
    def verdict(self) -> Verdict:
        """The verdict of all requirements on this part together."""
        return together([one.verdict for one in self.requirements])


@dataclass(frozen=True)
class Decision:
    """The outcome of the gate.

    Attributes:
        rule: The rule that was tested.
        metric: The title and direction of its metric.
        requirements: The number of requirements of all rules that are tested together, by which a
            fail is corrected.
        overall: The metric over all documents.
        parts: The metric in each part. With ``rule.per`` these parts decide together with
            ``overall``; without it they are the settings, shown for information only.
        baseline: The results of the baseline.
        candidate: The results of the candidate.
        notes: How the scoring of the two models affects the figures; one sentence each.
    """

    rule: Rule
    metric: Metric
    requirements: int
    overall: Row
    parts: list[Row]
    baseline: Run
    candidate: Run
    notes: list[str]

    @property
    def gated(self) -> list[Row]:
        """The rows on which the verdict depends."""
        return [*(self.parts if self.rule.per else []), self.overall]

    @property
    def verdict(self) -> Verdict:
        """pass: every requirement is shown to hold; fail: one is shown to be missed."""
        return together([row.verdict for row in self.gated])

    @property
    def deciding(self) -> tuple[Row, Requirement]:
        """The row and the requirement that decide the verdict.

        This is the requirement with the smallest margin among those with the same verdict as the
        whole. If a part ties with all documents, the row of all documents is returned.
        """
        candidates = [
            (row, one)
            for row in reversed(self.gated)
            for one in row.requirements
            if one.verdict == self.verdict
        ]
        return min(candidates, key=lambda pair: pair[1].margin)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of several requirements, rows or rules together."""
    if "fail" in verdicts:
        return "fail"
    return "undecided" if "undecided" in verdicts else "pass"


def decide(baseline: Run, candidate: Run, rule: Rule) -> Decision:
    """Test a candidate's results against a baseline's.

    Args:
        baseline: The baseline's results, with samples.
        candidate: The candidate's results on the same documents, with samples.
        rule: The requirements to test.

    Raises:
        UserError: Both are the same results, or were not scored on the same documents in the same
            way, or the documents form a single group; or the metric or a part is undefined.
    """
    check_two_models(baseline, candidate)
    check_comparable(baseline, [candidate], same_tasks=True)
    tasks = tasks_of(baseline)
    for task in tasks:
        _check_metric(baseline.tasks[task], rule.metric)
    scores = read_tasks((baseline, candidate), tasks)
    check_defined(scores, rule.metric, baseline, candidate)
    notes = [
        *(
            f"{one.task}: {absence_note(one.setting.split, absent)}."
            for one, absent in _lacking(scores)
        ),
        *scoring_notes((baseline, candidate), scores_of(scores)),
    ]
    return decided(baseline, candidate, [(rule, scores)], notes)[0]


def _lacking(scores: Sequence[TaskScores]) -> list[tuple[TaskScores, list[str]]]:
    """The tasks of the user's own whose documents lack a label, with the labels that they lack."""
    return [
        (one, absent)
        for one in scores
        if one.setting.place is None and (absent := _absent_labels(one))
    ]


def _absent_labels(scores: TaskScores) -> list[str]:
    """The labels that no document of a task has."""
    if scores.labelled is None:
        return []
    counts = scores.labelled.confusion[0].sum(axis=1)
    return [label for label, count in zip(scores.setting.labels, counts, strict=False) if not count]


def decided(
    baseline: Run,
    candidate: Run,
    rules: Sequence[tuple[Rule, Sequence[TaskScores]]],
    notes: list[str],
) -> list[Decision]:
    """Decide rules together, each on the scores of its own tasks."""
    parts = [
        parts_of(scores, rule.per or "setting", baseline, rule.metric) for rule, scores in rules
    ]
    requirements = sum(
        (1 if rule.limit is None else 2) * (1 + len(of_rule) if rule.per else 1)
        for (rule, _), of_rule in zip(rules, parts, strict=True)
    )
    return [
        Decision(
            rule=rule,
            metric=scores[0].metrics[rule.metric],
            requirements=requirements,
            overall=_row(everything(scores), rule, scores[0].metrics[rule.metric], requirements),
            parts=[
                _row(part, rule, scores[0].metrics[rule.metric], requirements) for part in of_rule
            ],
            baseline=baseline,
            candidate=candidate,
            notes=notes,
        )
        for (rule, scores), of_rule in zip(rules, parts, strict=True)
    ]


def _row(part: Part, rule: Rule, metric: Metric, requirements: int) -> Row:
    measured: Measured = measure(part, rule.metric)
    sign = turned(metric)
    first, second = measured.values or (None, None)
    change = None if first is None or second is None else sign * (second - first)
    level = None
    if rule.limit is not None:
        own = None if second is None else sign * second
        level = _required(measured.level, own, sign * rule.limit, rule, requirements)
    return Row(
        name=part.name,
        key=part.key,
        documents=measured.documents,
        groups=measured.groups,
        effective_groups=measured.effective_groups,
        baseline=first,
        candidate=second,
        change=_required(measured.change, change, -rule.max_drop, rule, requirements),
        level=level,
    )


def _required(
    bounded: Bounded | None, value: float | None, limit: float, rule: Rule, requirements: int
) -> Requirement:
    low = high = None
    if bounded:
        low = _finite(bounded.bounds(rule.alpha_now)[0])
        high = _finite(bounded.bounds(rule.alpha_now / requirements)[1])
    return Requirement(value, low, high, limit)


def _finite(bound: Array) -> float | None:
    """The bound; None if it is infinite because there are too few groups."""
    return float(bound) if np.isfinite(bound) else None


def check_two_models(baseline: Run, candidate: Run) -> None:
    """Refuse the same results under both names."""
    first, second = (
        {result.source.resolve() for result in (run.logged or run.tasks).values()}
        for run in (baseline, candidate)
    )
    if shared := first & second:
        raise UserError(
            "baseline and candidate are the same results; name the result folders of two models",
            path=min(shared),
        )


def _check_metric(result: TaskResult, metric: str) -> None:
    """Refuse a metric that is undefined for the labels of a task."""
    count, lacks = len(result.setting.labels), ""
    if metric in ("qwk", "mae") and not result.setting.ordinal:
        lacks = f"needs labels with an order, and the labels of {result.task} have none"
    if metric == "auroc" and count != 2:
        lacks = f"needs two labels, and {result.task} has {count}"
    if lacks:
        raise UserError(
            f"{metric} {lacks}; use --metric acc or --metric macro_f1", path=result.source
        )


def check_defined(scores: Sequence[TaskScores], metric: str, baseline: Run, candidate: Run) -> None:
    """Refuse an undefined metric, and documents that form a single group.

    The variance between groups can be estimated only from two groups or more.
    """

    def undefined(one: TaskScores, how: str) -> UserError:
        lacks = ", ".join(map(repr, _absent_labels(one)))
        more = f"documents with the label {lacks}, which none has" if lacks else "more documents"
        return UserError(
            f"{metric} of {one.task} is undefined {how}; score {more}, or use --metric acc",
            path=samples_file((candidate.logged or candidate.tasks)[one.task]),
        )

    for one in scores:
        if not np.isfinite(one.statistics[metric].values).all():
            raise undefined(one, "for one of the models")
    if len({*everything(scores).groups}) < 2:
        count = sum(len(one.ids) for one in scores)
        raise UserError(
            f"has {count} document{'s' * (count > 1)} of one group, and the standard error of a "
            "change needs two groups or more; score more documents",
            path=baseline.folder,
        )
    for one in scores:
        known = len(one.sums.groups) > 1 and np.isfinite(one.statistics[metric].influence).all()
        if metric not in one.values and not known:
            raise undefined(one, "if one of its groups is left out")
