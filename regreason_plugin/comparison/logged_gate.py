"""The gate on any tasks of lm_eval, with one rule or several that are tested together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from regreason_plugin.comparison.arms import Arms
from regreason_plugin.comparison.gate import (
    Decision,
    Rule,
    check_defined,
    check_two_models,
    decided,
)
from regreason_plugin.comparison.logged_comparability import check_logged_comparable
from regreason_plugin.comparison.logged_scores import is_share, read_logged_tasks, with_score
from regreason_plugin.comparison.notes import group_notes
from regreason_plugin.comparison.task_scores import TaskScores, scores_of
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.logged_results import is_wanted
from regreason_plugin.evaluate.results import Run, first_names
from regreason_plugin.evaluate.scoring_notes import scoring_notes
from regreason_plugin.metrics.metric_names import SCORE


def decide_logged(
    baseline: Run, candidate: Run, rules: Sequence[Rule], group_by: str | None = None
) -> list[Decision]:
    """Test a candidate's results on any tasks of lm_eval against a baseline's.

    Args:
        baseline: As in `decide`, read with `read_logged_models`.
        candidate: As in `decide`.
        rules: The rules, which are tested together: a fail is corrected for all their requirements.
        group_by: As in `read_logged_answers`.

    Returns:
        A decision for each rule.

    Raises:
        UserError: As in `decide`, or no task of both models has the name in a rule, or a task lacks
            a rule's metric, or the metric is not a mean over documents, or the first metrics of
            several tasks cannot be averaged.
    """
    check_two_models(baseline, candidate)
    arms = Arms.of([baseline, candidate], baseline.name)
    tasks = check_logged_comparable(arms)
    of_rules = [
        [task for task in tasks if not rule.tasks or is_wanted(baseline.logged[task], rule.tasks)]
        for rule in rules
    ]
    wanted = list(dict.fromkeys(task for of_rule in of_rules for task in of_rule))
    scores = {
        one.task: one
        for one in read_logged_tasks(
            arms.models, arms.partners, wanted, group_by, with_corpus_metrics=False
        )
    }
    parts = []
    for rule, of_rule in zip(rules, of_rules, strict=True):
        if not of_rule:
            raise UserError(
                f"no task that both models have is {' or '.join(rule.tasks)}; they have "
                f"{first_names(tasks)}",
                path=baseline.folder,
            )
        named, chosen = _with_metric(rule, [scores[task] for task in of_rule])
        for one in chosen:
            _check_metric(one, named)
        check_defined(chosen, named.metric, baseline, candidate)
        parts.append((named, chosen))
    notes = [
        *group_notes({task: one.group_field for task, one in scores.items()}),
        *scoring_notes(arms.models, scores_of(scores.values())),
    ]
    return decided(baseline, candidate, parts, notes)


def _with_metric(rule: Rule, scores: list[TaskScores]) -> tuple[Rule, list[TaskScores]]:
    """The rule with the name of its metric, and the tasks with this metric.

    Raises:
        UserError: The rule names no metric, and the tasks' first metrics cannot be averaged.
    """
    if rule.metric != SCORE:
        return rule, scores
    firsts = [next(iter(one.metrics), "none") for one in scores]
    if len({*firsts}) == 1:
        return replace(rule, metric=firsts[0]), scores
    if wrong := [
        f"{one.task}: {first}"
        for one, first in zip(scores, firsts, strict=True)
        if not is_share(one, first)
    ]:
        raise UserError(
            "the tasks' first metrics cannot be averaged, because these are not means of values "
            f"from 0 to 1 of which higher ones are better: {', '.join(wrong)}; name a metric that "
            "all tasks have, or gate fewer tasks at a time"
        )
    return rule, [with_score(one) for one in scores]


def _check_metric(one: TaskScores, rule: Rule) -> None:
    metric = rule.metric
    known = [name for name in one.metrics if name in one.values]
    if metric not in known:
        why = "is no mean over documents" if metric in one.metrics else "is not one of its metrics"
        raise UserError(
            f"{metric!r} of {one.task} {why}; name one that can be gated: "
            f"{', '.join(known) or 'it has none'}"
        )
    if without := int(np.isnan(one.values[metric]).any(axis=0).sum()):
        raise UserError(
            f"{without} of {len(one.ids)} documents of {one.task} have no {metric!r}; name a "
            "metric that all documents have"
        )
    lower = one.metrics[metric].better == "lower"
    if rule.limit is not None and rule.ceiling not in (None, lower):
        wrong, right = ("min", "max") if lower else ("max", "min")
        raise UserError(
            f"{wrong} is for metrics where {'higher' if lower else 'lower'} is better, which "
            f"{metric!r} of {one.task} is not; use {right}"
        )
