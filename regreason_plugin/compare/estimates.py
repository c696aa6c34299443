"""Figures with their intervals, of one setting or pooled over all of them.

A group of documents (a conversation's axes, answers to one question) can be in several settings,
so pooled figures count it once: its influences on the settings add up, and a bootstrap draws it
for all settings at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from regreason_plugin.compare.arms import Models
from regreason_plugin.compare.comparison import Interval, Score
from regreason_plugin.compare.crossed_variance import (
    ENOUGH_SEEDS,
    Estimate,
    bootstrapped,
    crossed,
    group_weights,
)
from regreason_plugin.compare.task_scores import TaskScores
from regreason_plugin.metrics.answers import Array, Integers
from regreason_plugin.metrics.group_sums import NO_MEANS, drawing
from regreason_plugin.metrics.influence import Statistic, mean_influence
from regreason_plugin.metrics.metric_names import LAYERS, METRICS

DRAWS = 10_000
BOOTSTRAP_SEED = 0


class Estimates:
    """All settings of all models.

    Args:
        tasks: What was read of each.
        drawn: Those figures of few seeds that need a bootstrap.
        draws: Of the bootstrap.
    """

    def __init__(
        self, tasks: Sequence[TaskScores], drawn: Sequence[Models], draws: int = DRAWS
    ) -> None:
        self.tasks = tasks
        self.draws = draws
        names = sorted({(task.folder, name) for task in tasks for name in task.sums.groups})
        place = {name: index for index, name in enumerate(names)}
        self._places = [
            np.array([place[task.folder, name] for name in task.sums.groups], dtype=np.int64)
            for task in tasks
        ]
        self._groups = len(names)
        # A mean over fewer settings would be another quantity.
        self.metrics = [name for name in METRICS if all(name in task.statistics for task in tasks)]
        # Of each arm's entropies by layer the sums in each task, ``[seeds, groups, layers + 1]``.
        self._layers = {
            (name, models): totals
            for name in LAYERS
            for models in drawn
            if not models.minus and (totals := self._layer_totals(name, models))
        }
        self._drawn = list(dict.fromkeys(models for models in drawn if _few(models)))
        self._layer_draws = {
            key: np.zeros((draws, totals[0].shape[2]))
            for key, totals in self._layers.items()
            if _few(key[1])
        }
        self._draws = self._bootstrap(self._drawn)

    def _layer_totals(self, name: str, models: Models) -> list[Array]:
        """By task; empty where not all tasks have them of as many layers."""
        sums = [task.sums for task in self.tasks]
        if not all(name in one.layers and one.layers_known[name].any() for one in sums):
            return []
        by_task = [[one.layers[name][model] for model in models.of] for one in sums]
        depths = {totals.shape[1] for of_task in by_task for totals in of_task}
        return [np.stack(of_task) for of_task in by_task] if len(depths) == 1 else []

    def score(self, metric: str, models: Models, task: int | None = None) -> Score:
        """An arm's figure, with its seeds' own."""
        by_seed = self.statistic(metric, models, task).values
        known = [float(value) if np.isfinite(value) else None for value in by_seed]
        interval = interval_of(self.estimate(metric, models, task))
        return Score(**interval.model_dump(), by_seed=known)

    def estimate(self, metric: str, models: Models, task: int | None = None) -> Estimate | None:
        """A figure of one setting, or the unweighted mean over all; None where undefined."""
        draws = None
        if _few(models):
            of_task = self._draws[self.metrics.index(metric), ..., self._drawn.index(models)]
            draws = (of_task.mean(axis=0) if task is None else of_task[task]).astype(np.float64)
        return _estimate(
            self.statistic(metric, models, task), draws, is_mean=metric not in NO_MEANS
        )

    def statistic(self, metric: str, models: Models, task: int | None = None) -> Statistic:
        """A figure by seed, and the groups' influences; of all groups where it is pooled."""
        if task is not None:
            return _combine(self.tasks[task].statistics[metric], models)
        return self._pooled([_combine(one.statistics[metric], models) for one in self.tasks])

    def layers(self, name: str, models: Models) -> list[Interval]:
        """An entropy by layer, pooled; empty where not all tasks have it at as many layers.

        Args:
            name: Such as ``matrix_entropy_by_layer``.
            models: An arm.

        Returns:
            A layer each, estimated as every other mean.
        """
        intervals = []
        totals = self._layers.get((name, models), [])
        for layer in range(totals[0].shape[2] if totals else 0):
            by_task = [
                mean_influence(of_task[..., layer], task.sums.layers_known[name])
                for task, of_task in zip(self.tasks, totals, strict=True)
            ]
            draws = self._layer_draws.get((name, models))
            of_layer = None if draws is None else draws[:, layer]
            intervals.append(interval_of(_estimate(self._pooled(by_task), of_layer)))
        return intervals

    def _pooled(self, by_task: Sequence[Statistic]) -> Statistic:
        """The unweighted mean over the tasks, with the influence of all groups."""
        seeds = len(by_task[0].values)
        values, influence = np.zeros(seeds), np.zeros((seeds, self._groups))
        for of_task, places in zip(by_task, self._places, strict=True):
            values += of_task.values / len(self.tasks)
            influence[:, places] += of_task.influence * self._share(places)
        return Statistic(values, influence)

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
        shape = (len(self.metrics), len(self.tasks), self.draws, len(drawn))
        figures_drawn: NDArray[np.float32] = np.empty(shape, dtype=np.float32)
        used = sorted({model for models in drawn for model in (*models.of, *models.minus)})
        if not used:
            return figures_drawn
        figures = _as_matrix(drawn, used)
        draw = [drawing(task.sums, used) for task in self.tasks]
        columns = [_as_slice(places) for places in self._places]
        start = 0
        for weights in group_weights(self._strata(), self.draws, BOOTSTRAP_SEED):
            stop = start + len(weights)
            for at, column in enumerate(columns):
                metrics = draw[at](weights[:, column])
                by_model = np.stack([metrics[name] for name in self.metrics])
                figures_drawn[:, at, start:stop] = by_model @ figures
                self._draw_layers(at, weights[:, column], slice(start, stop))
            start = stop
        return figures_drawn

    def _draw_layers(self, at: int, weights: NDArray[np.float32], part: slice) -> None:
        """Add one task's share of some draws to those of the entropies by layer."""
        for (name, models), draws in self._layer_draws.items():
            totals = self._layers[name, models][at].mean(axis=0)
            known = weights @ self.tasks[at].sums.layers_known[name]
            with np.errstate(invalid="ignore", divide="ignore"):
                draws[part] += weights @ totals / (known * len(self.tasks))[:, None]


def interval_of(estimate: Estimate | None) -> Interval:
    """What is known of a figure; null where it is not finite."""
    if estimate is None:
        return Interval(value=None)
    low, high = (end if math.isfinite(end) else None for end in (estimate.low, estimate.high))
    return Interval(value=estimate.value, low=low, high=high)


def _estimate(
    statistic: Statistic, draws: Array | None, *, is_mean: bool = True
) -> Estimate | None:
    """By the two-way table of seeds and groups, or by a bootstrap's draws where there are some."""
    values, influence = statistic
    if not np.isfinite(values).all():
        return None
    value = float(values.mean())
    if influence.shape[1] < 2 or not np.isfinite(influence).all():
        # One group says nothing of how groups differ.
        return Estimate(value, math.nan, math.nan, math.nan, math.nan, None, "groups")
    if draws is None:
        return crossed(values, influence)
    if not is_mean and not np.isnan(draws).all():
        # A sample repeats documents: its calibration error lies above the estimate by as much as
        # the estimate above that of endless documents. Over 18 settings no interval would hold
        # its own estimate.
        draws = draws + (value - np.nanmean(draws))
    # What lies beyond the seventh digit is the single precision's.
    return bootstrapped(value, draws.round(7), influence)


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
