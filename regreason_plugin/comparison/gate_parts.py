"""The parts of the documents that a gate tests one by one, and both models' scores in each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.comparison.gate_bounds import (
    Bounded,
    accuracy,
    accuracy_change,
    other_metric,
)
from regreason_plugin.comparison.group_variance import GroupWeights
from regreason_plugin.comparison.task_scores import TaskScores
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.samples import document_field
from regreason_plugin.metrics.answers import Array
from regreason_plugin.metrics.metric_names import Metric

# Our metrics that are means over documents. All other metrics need all documents of a task.
MEANS = ("acc", "nll", "mae")
# A field with more values than this does not divide the documents into useful subgroups.
_MOST_PARTS = 50


@dataclass(frozen=True)
class Part:
    """A subset of the documents.

    Attributes:
        name: The name of the part in words.
        key: The name of the part for programs.
        tasks: The tasks that the documents belong to, each with a mask of its documents, ``[N]``.
    """

    name: tuple[str, str]
    key: str
    tasks: list[tuple[TaskScores, NDArray[np.bool_]]]

    def metric_of(self, name: str) -> Metric:
        """The title and direction of a metric, which all tasks of the part have."""
        return self.tasks[0][0].metrics[name]

    @property
    def groups(self) -> list[str]:
        """The group of each document; groups of different data folders are different."""
        return [
            f"{one.folder} {one.groups[place]}"
            for one, chosen in self.tasks
            for place in np.flatnonzero(chosen)
        ]


@dataclass(frozen=True)
class Measured:
    """Both models' scores in a part.

    Attributes:
        documents: The number of documents in the part.
        groups: The number of their groups.
        effective_groups: The number of groups of equal size that would give the same precision.
        values: The metric of the baseline and of the candidate; None without documents.
        change: The candidate's metric minus the baseline's, with the sign reversed if lower is
            better; None with fewer than two groups.
        level: The candidate's metric, with the sign reversed if lower is better; None with fewer
            than two groups.
    """

    documents: int
    groups: int
    effective_groups: float
    values: tuple[float, float] | None
    change: Bounded | None
    level: Bounded | None


def everything(scores: Sequence[TaskScores]) -> Part:
    """The part that holds all documents of all tasks."""
    return Part(("all", ""), "all", [(one, _all(one)) for one in scores])


def parts_of(scores: Sequence[TaskScores], per: str, baseline: Run, metric: str) -> list[Part]:
    """Divide the documents into parts.

    Args:
        scores: The scores of all tasks.
        per: ``setting`` or ``task``; ``class`` for the right label; or the name of a field of the
            documents.
        baseline: The model whose samples hold the field.
        metric: The metric of the gate, which must be defined within each part.

    Raises:
        UserError: The documents lack the field, or the field has too many values, or the metric is
            undefined for some of a task's documents.
    """
    if per in ("setting", "task"):
        return [
            Part(
                (one.setting.title, one.setting.axis_title),
                one.task if one.logged else f"{one.setting.dataset} {one.setting.axis}",
                [(one, _all(one))],
            )
            for one in scores
        ]
    if baseline.logged:
        raise UserError(f"--per {per}: tasks of lm_eval can be gated per task only")
    values: list[NDArray[np.str_]] = []
    known: list[str] = []
    for one in scores:
        if per == "class":
            if one.labelled is None or not one.setting.labels:
                raise UserError(f"--per class: the documents of {one.task} have no labels")
            known += one.setting.labels
            values.append(np.array(one.setting.labels)[one.labelled.labels - 1])
        else:
            of_document = document_field(baseline.tasks[one.task], per)
            values.append(np.array([of_document[document] for document in one.ids]))
            known += sorted(set(values[-1].tolist()))
    names = list(dict.fromkeys(known))
    if len(names) > _MOST_PARTS:
        raise UserError(
            f"--per {per} makes {len(names)} parts; name a field with at most {_MOST_PARTS} values"
        )
    divided = any(len(set(of.tolist())) > 1 for of in values)
    if divided and metric not in MEANS:
        raise UserError(
            f"--per {per} divides a task's documents, and {metric} is not a mean over documents; "
            f"use --metric {' or '.join(MEANS)}, or --per setting"
        )
    return [
        Part(
            (name, ""),
            name,
            [
                (one, of == name)
                for one, of in zip(scores, values, strict=True)
                if (of == name).any()
            ],
        )
        for name in names
    ]


def _all(scores: TaskScores) -> NDArray[np.bool_]:
    return np.ones(len(scores.ids), dtype=bool)


def measure(part: Part, metric: str) -> Measured:
    """Both models' scores in a part; each task is weighted by its number of documents."""
    names, member = np.unique(part.groups, return_inverse=True)
    sizes = np.bincount(member, minlength=len(names)).astype(np.float64)
    if not len(names):
        return Measured(0, 0, 0.0, None, None, None)
    is_mean = all(metric in one.values for one, _ in part.tasks)
    score = _mean if is_mean else _weighted_tasks
    values, influence = score(part, metric, names, member)
    change: Bounded | None = None
    level: Bounded | None = None
    if len(names) > 1 and all(metric in one.proportions for one, _ in part.tasks):
        first, second = _values(part, metric)
        wins, losses, right = (
            np.bincount(member, x, len(names)).astype(np.float64)
            for x in (second > first, first > second, second)
        )
        change, level = accuracy_change(wins, losses, sizes), accuracy(right, sizes)
    elif len(names) > 1:
        sign = turned(part.metric_of(metric))
        change = other_metric(
            np.asarray(sign * (values[1] - values[0])), sign * (influence[1] - influence[0]), sizes
        )
        level = other_metric(np.asarray(sign * values[1]), sign * influence[1], sizes)
    return Measured(
        documents=len(member),
        groups=len(names),
        effective_groups=GroupWeights.of_sizes(sizes).effective_groups,
        values=(float(values[0]), float(values[1])),
        change=change,
        level=level,
    )


def _values(part: Part, metric: str) -> Array:
    """The documents' values of a metric that is a mean, ``[models, documents]``."""
    chosen = [one.values[metric][:, mask] for one, mask in part.tasks]
    return np.concatenate(chosen, axis=1).astype(np.float64)


def _mean(
    part: Part, metric: str, names: NDArray[np.str_], member: NDArray[np.int64]
) -> tuple[Array, Array]:
    """The means ``[models]`` and the groups' contributions to them ``[models, groups]``."""
    documents = _values(part, metric)
    means = documents.mean(axis=1)
    deviations = (documents - means[:, None]) / documents.shape[1]
    return means, np.stack([np.bincount(member, row, len(names)) for row in deviations])


def _weighted_tasks(
    part: Part, metric: str, names: NDArray[np.str_], member: NDArray[np.int64]
) -> tuple[Array, Array]:
    """A metric that is no mean, ``[models]``, with the groups' influence ``[models, groups]``.

    The influence comes from the tasks' jackknives. The part must contain all documents of each
    task.
    """
    values, influence = np.zeros(2), np.zeros((2, len(names)))
    for one, _ in part.tasks:
        of_task, of_group = one.statistics[metric]
        weight = len(one.ids) / len(member)
        values += weight * of_task
        place = np.searchsorted(names, [f"{one.folder} {name}" for name in one.sums.groups])
        influence[:, place] += weight * of_group / len(place)
    return values, influence


def turned(metric: Metric) -> int:
    """The sign that makes higher better: -1 if lower is better, else 1."""
    return -1 if metric.better == "lower" else 1
