"""The figures of groups of lm_eval's tasks, such as mmlu: means over all documents of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from regreason_plugin.comparison.arms import Arms
from regreason_plugin.comparison.comparison import GroupOfTasks
from regreason_plugin.comparison.differences import difference_of
from regreason_plugin.comparison.estimates import Estimates
from regreason_plugin.comparison.task_scores import TaskScores
from regreason_plugin.metrics.group_sums import Sums
from regreason_plugin.metrics.influence import mean_influence


def task_groups_of(scores: Sequence[TaskScores], arms: Arms, metric: str) -> list[GroupOfTasks]:
    """The figures of every group with two compared tasks or more, in the order of the tasks.

    Every document weighs the same, as in lm_eval's groups (``weight_by_size``). A group whose tasks
    are not all part of the mean over the tasks is left out.

    Args:
        scores: The scores of all tasks.
        arms: The arms and their models.
        metric: The metric, which all pooled tasks have.
    """
    members: dict[str, list[TaskScores]] = {}
    for one in scores:
        for group in one.task_groups:
            members.setdefault(group, []).append(one)
    groups = []
    for name, tasks in members.items():
        if len(tasks) < 2 or not all(one.pooled and metric in one.values for one in tasks):
            continue
        estimates = Estimates([_together(name, tasks, metric)])
        groups.append(
            GroupOfTasks(
                name=name,
                tasks=[one.task for one in tasks],
                documents=sum(len(one.ids) for one in tasks),
                scores={arm: estimates.scores(arms.alone(arm))[metric] for arm in arms.runs},
                differences={
                    arm: difference_of(estimates, metric, arms.against(arm)) for arm in arms.others
                },
            )
        )
    return groups


def _together(name: str, tasks: Sequence[TaskScores], metric: str) -> TaskScores:
    """The documents of several tasks as those of one task, with a single metric."""
    groups = [f"{one.folder} {group}" for one in tasks for group in one.groups]
    names, member = np.unique(groups, return_inverse=True)
    values = np.concatenate([one.values[metric] for one in tasks], axis=1)
    known = np.isfinite(values).all(axis=0)
    totals = [np.bincount(member, np.where(known, of, 0), len(names)) for of in values]
    sizes = np.bincount(member, known, len(names)).astype(np.float64)
    return replace(
        tasks[0],
        task=name,
        folder=name,
        ids=[f"{one.task} {document}" for one in tasks for document in one.ids],
        groups=groups,
        sums=Sums([*map(str, names)], member.astype(np.int64), sizes, {}, {}, ""),
        metrics={metric: tasks[0].metrics[metric]},
        statistics={metric: mean_influence(np.array(totals), sizes)},
        values={metric: values},
        proportions=frozenset({metric} if all(metric in one.proportions for one in tasks) else ()),
        labelled=None,
        replicates={},
    )
