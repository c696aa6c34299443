"""Figures with their intervals, of one setting or pooled over all of them.

A group of documents (a conversation's axes, answers to one question) can be in several settings,
so pooled figures count it once: its influences on the settings add up, and a bootstrap draws it
for all settings at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from regreason_plugin.compare.comparison import METRICS, Interval
from regreason_plugin.compare.crossed_variance import (
    ENOUGH_SEEDS,
    Estimate,
    bootstrapped,
    crossed,
    group_weights,
)
from regreason_plugin.compare.task_scores import TaskScores
from regreason_plugin.metrics.group_sums import NO_MEANS, Array, Integers, Statistic, drawing

DRAWS = 10_000
BOOTSTRAP_SEED = 0


class Models(NamedTuple):
    """Which models a figure is of: means over ``of``, less those of ``minus`` one by one."""

    of: tuple[int, ...]
    minus: tuple[int, ...] = ()


class Estimates:
    """All settings of all models.

    Args:
        tasks: What was read of each.
        drawn: Those figures of few seeds that need a bootstrap.
    """

    def __init__(self, tasks: Sequence[TaskScores], drawn: Sequence[Models]) -> None:
        self.tasks = tasks
        names = sorted({(task.folder, name) for task in tasks for name in task.sums.groups})
        place = {name: index for index, name in enumerate(names)}
        self._places = [
            np.array([place[task.folder, name] for name in task.sums.groups], dtype=np.int64)
            for task in tasks
        ]
        self._groups = len(names)
        have = [task.statistics.keys() for task in tasks]
        self.metrics = [name for name in METRICS if all(name in of for of in have)]
        # A mean over fewer settings would be another quantity.
        self.not_shared = [
            name for name in METRICS if name not in self.metrics and any(name in of for of in have)
        ]
        self._drawn = list(dict.fromkeys(models for models in drawn if _few(models)))
        self._draws = self._bootstrap(self._drawn)

    def estimate(self, metric: str, models: Models, task: int | None = None) -> Estimate | None:
        """A figure of one setting, or the unweighted mean over all; None where undefined."""
        values, influence = self.statistic(metric, models, task)
        if not np.isfinite(values).all():
            return None
        value = float(values.mean())
        if influence.shape[1] < 2 or not np.isfinite(influence).all():
            # One group says nothing of how groups differ.
            return Estimate(value, math.nan, math.nan, math.nan, math.nan, None, "groups")
        if not _few(models):
            return crossed(values, influence)
        draws = self._draws[self.metrics.index(metric), ..., self._drawn.index(models)]
        of_task = draws.mean(axis=0) if task is None else draws[task]
        of_task = of_task.astype(np.float64)
        if metric in NO_MEANS and not np.isnan(of_task).all():
            # A sample repeats documents: its calibration error lies above the estimate by as much
            # as the estimate above that of endless documents. Over 18 settings no interval would
            # hold its own estimate.
            of_task += value - np.nanmean(of_task)
        # What lies beyond the seventh digit is the single precision's.
        return bootstrapped(value, of_task.round(7), influence)

    def statistic(self, metric: str, models: Models, task: int | None = None) -> Statistic:
        """A figure by seed, and the groups' influences; of all groups where it is pooled."""
        if task is not None:
            return _combine(self.tasks[task].statistics[metric], models)
        values: Array = np.zeros(len(models.of))
        influence = np.zeros((len(models.of), self._groups))
        for scores, places in zip(self.tasks, self._places, strict=True):
            found = _combine(scores.statistics[metric], models)
            values += found.values / len(self.tasks)
            influence[:, places] += found.influence * self._share(places)
        return Statistic(values, influence)

    def layers(self, name: str, models: Models) -> list[Interval]:
        """An entropy by layer, pooled: one interval a layer; empty where models differ in depth."""
        depths = {
            task.sums.layers[name].shape[-1] for task in self.tasks if name in task.sums.layers
        }
        if len(depths) != 1 or any(name not in task.sums.layers for task in self.tasks):
            return []
        (depth,) = depths
        values = np.zeros((len(models.of), depth))
        influence = np.zeros((len(models.of), self._groups, depth))
        for scores, places in zip(self.tasks, self._places, strict=True):
            totals = scores.sums.layers[name][list(models.of)]
            known = scores.sums.layers_known[name]
            means = totals.sum(axis=1) / known.sum()
            values += means / len(self.tasks)
            deviations = totals - known[:, None] * means[:, None]
            influence[:, places] += deviations * (len(places) / known.sum()) * self._share(places)
        return [self._by_formula(values[:, at], influence[..., at]) for at in range(depth)]

    def _by_formula(self, values: Array, influence: Array) -> Interval:
        """Without a bootstrap: of seeds and groups, or of groups alone where seeds are few."""
        from scipy.stats import t

        value, groups = float(values.mean()), influence.shape[1]
        if not math.isfinite(value) or groups < 2:
            return Interval(value=value if math.isfinite(value) else None)
        if len(values) >= ENOUGH_SEEDS:
            found = crossed(values, influence)
            return Interval(value=value, low=found.low, high=found.high)
        error = math.sqrt(float((influence.mean(axis=0) ** 2).sum()) / (groups * (groups - 1)))
        half = float(t.ppf(0.975, groups - 1)) * error
        return Interval(value=value, low=value - half, high=value + half)

    def _share(self, places: Integers) -> float:
        """What makes of a group's influence on a setting that on the mean over settings."""
        return self._groups / (len(places) * len(self.tasks))

    def _strata(self) -> Integers:
        """Groups whose settings hang together: resampled within, each setting keeps its size."""
        task = np.concatenate([np.full(len(p), i) for i, p in enumerate(self._places)])
        group = np.concatenate(self._places) + len(self.tasks)
        size = len(self.tasks) + self._groups
        graph = coo_array((np.ones(len(task)), (task, group)), shape=(size, size))
        _, component = connected_components(graph, directed=False)
        _, strata = np.unique(component[len(self.tasks) :], return_inverse=True)
        found: Integers = strata.astype(np.int64)
        return found

    def _bootstrap(self, drawn: Sequence[Models]) -> NDArray[np.float32]:
        """Each figure in every bootstrap sample, ``[metrics, tasks, draws, figures]``."""
        shape = (len(self.metrics), len(self.tasks), DRAWS, len(drawn))
        found: NDArray[np.float32] = np.empty(shape, dtype=np.float32)
        used = sorted({model for models in drawn for model in (*models.of, *models.minus)})
        if not used:
            return found
        figures = _as_matrix(drawn, used)
        draw = [drawing(task.sums, used) for task in self.tasks]
        columns = [_as_slice(places) for places in self._places]
        start = 0
        for weights in group_weights(self._strata(), DRAWS, BOOTSTRAP_SEED):
            stop = start + len(weights)
            for at, column in enumerate(columns):
                metrics = draw[at](weights[:, column])
                by_model = np.stack([metrics[name] for name in self.metrics])
                found[:, at, start:stop] = by_model @ figures
            start = stop
        return found


def _few(models: Models) -> bool:
    return len(models.of) < ENOUGH_SEEDS


def _as_matrix(drawn: Sequence[Models], used: Sequence[int]) -> NDArray[np.float32]:
    """What makes figures of the models' metrics, ``[models, figures]``.

    (A metric that is undefined in a sample is so for all models: the labels are the same.)
    """
    column = {model: index for index, model in enumerate(used)}
    matrix = np.zeros((len(used), len(drawn)), dtype=np.float32)
    for place, models in enumerate(drawn):
        for sign, side in ((1, models.of), (-1, models.minus)):
            for model in side:
                matrix[column[model], place] += sign / len(side)
    return matrix


def _as_slice(places: Integers) -> slice | Integers:
    """Places that follow each other as a slice, which copies nothing."""
    follow = len(places) == places[-1] - places[0] + 1
    return slice(int(places[0]), int(places[-1]) + 1) if follow else places


def _combine(statistic: Statistic, models: Models) -> Statistic:
    of = list(models.of)
    values, influence = statistic.values[of], statistic.influence[of]
    if models.minus:
        minus = list(models.minus)
        return Statistic(values - statistic.values[minus], influence - statistic.influence[minus])
    return Statistic(values, influence)
