"""Estimates with confidence intervals, of one setting or pooled over all settings.

The same group of documents (the axes of one conversation, the answers to one question) can occur in
several settings. Pooled figures count it once: its contributions to the settings are summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from regreason_plugin.comparison.arms import Models
from regreason_plugin.comparison.comparison import Interval, Score
from regreason_plugin.comparison.crossed_variance import (
    Estimate,
    accuracy_difference,
    mean,
    share,
    undefined,
    variance_of,
    variance_with_unseen_event,
)
from regreason_plugin.comparison.group_variance import BootstrapWeights, GroupWeights
from regreason_plugin.comparison.task_scores import LabelScores, TaskScores
from regreason_plugin.metrics.answers import Array, Integers
from regreason_plugin.metrics.influence import Statistic, mean_influence
from regreason_plugin.metrics.metric_names import CALIBRATED, FORCED, PROBES

# Entropies have no rare events, so their variance is estimated without unobserved ones.
_WITHOUT_EVENTS = ("label_entropy", *PROBES)


class Estimates:
    """Estimates of all metrics, for all settings and models.

    Attributes:
        tasks: The scores of each task.
        groups: The number of different groups of documents in all tasks.
        metrics: The metrics that every task has of which the mean over the tasks is taken.
    """

    def __init__(self, tasks: Sequence[TaskScores]) -> None:
        self.tasks = tasks
        names = sorted({(task.folder, name) for task in tasks for name in task.sums.groups})
        place = {name: index for index, name in enumerate(names)}
        self._places = [
            np.array([place[task.folder, name] for name in task.sums.groups], dtype=np.int64)
            for task in tasks
        ]
        self.groups = len(names)
        # The index of each document's group among the groups of all tasks.
        self._members = [
            places[np.searchsorted(task.sums.groups, task.groups)]
            for task, places in zip(tasks, self._places, strict=True)
        ]
        self._pooled_tasks = [at for at, task in enumerate(tasks) if task.pooled]
        # A mean over only some of these tasks would be a different quantity.
        self.metrics = [
            name
            for name in tasks[self._pooled_tasks[0]].metrics
            if all(name in tasks[at].metrics for at in self._pooled_tasks)
        ]

    def metrics_of(self, task: int | None) -> list[str]:
        """The metrics compared in one task, or in the mean over the tasks for None."""
        if task is None or not self.tasks[task].logged:
            return self.metrics
        return list(self.tasks[task].metrics)

    def scores(self, models: Models, task: int | None = None) -> dict[str, Score]:
        """An arm's estimate of every metric, with its values by seed and their spread."""
        scores = {}
        for metric in self.metrics_of(task):
            by_seed = self._statistic(metric, models, self._at(task)).values
            known = [float(value) if np.isfinite(value) else None for value in by_seed]
            spread = float(by_seed.std(ddof=1)) if len(known) > 1 and None not in known else None
            estimate = self.estimate(metric, models, task)
            scores[metric] = Score(
                **interval_of(estimate).model_dump(),
                by_seed=known,
                seed_sd=spread,
                se=self._plain_error(metric, models, self._at(task), estimate),
            )
        for prefix in ("", CALIBRATED):
            if ece := self._plain_calibration_error(models, self._at(task), prefix):
                scores[f"{prefix}ece"] = ece
        return scores

    def estimate(
        self, metric: str, models: Models, task: int | None = None, margin: float = math.nan
    ) -> Estimate | None:
        """Estimate a metric in one setting, or its unweighted mean over all settings.

        Args:
            metric: The key of the metric.
            models: The models of an arm, or of two arms whose difference is estimated.
            task: The index of the setting; None for all.
            margin: The equivalence margin: differences from -margin to +margin count as the same.

        Returns:
            The estimate; None if the metric is undefined.
        """
        tasks = self._at(task)
        values, contributions = self._statistic(metric, models, tasks)
        if not np.isfinite(values).all():
            return None
        if metric in self.tasks[tasks[0]].replicates:
            return self._bootstrapped(metric, models, tasks, values, margin)
        weights = self._weights(metric, tasks)
        # The variance between groups needs at least two groups.
        unknown = np.count_nonzero(weights.shares) < 2 or not np.isfinite(contributions).all()
        if unknown:
            return undefined(float(values.mean()))
        if metric.removeprefix(FORCED).removeprefix(CALIBRATED) in _WITHOUT_EVENTS:
            return mean(values, variance_of(values, contributions, weights), margin=margin)
        prefix, is_miscalibration, _ = metric.partition("miscalibration")
        if is_miscalibration:
            variance = variance_of(values, contributions, weights)
            variance = variance.at_least(self._chance_variance(models, tasks, prefix))
            return mean(values, variance, margin=margin)
        if metric not in self.tasks[tasks[0]].values:
            variance = variance_of(values, contributions, weights)
            variance = variance.at_least(self._unseen_variance(variance.whole, models, tasks))
            return mean(values, variance, margin=margin)
        squares, largest = self._squares(metric, models, tasks)
        if not self.is_proportion(metric, task):
            event = max(largest, self._unit(metric, tasks) / weights.effective_documents**2)
            variance = variance_with_unseen_event(event, values, contributions, squares, weights)
            return mean(values, variance, margin=margin)
        if not models.minus:
            return share(values, contributions, squares, weights)
        losses, wins = self._losses_and_wins(metric, models, tasks)
        return accuracy_difference(
            losses, wins, values, contributions, squares, weights, margin=margin
        )

    def _plain_error(
        self, metric: str, models: Models, tasks: Sequence[int], estimate: Estimate | None
    ) -> float | None:
        """The standard error of any task of lm_eval, without an allowance for unobserved events."""
        if estimate is None or not all(self.tasks[at].logged for at in tasks):
            return None
        if estimate.variance is None or metric in self.tasks[tasks[0]].replicates:
            return estimate.se if math.isfinite(estimate.se) else None
        values, contributions = self._statistic(metric, models, tasks)
        return math.sqrt(variance_of(values, contributions, self._weights(metric, tasks)).whole)

    def is_proportion(self, metric: str, task: int | None) -> bool:
        """Whether every document's value is 0 or 1, in one task or in all pooled ones for None."""
        return all(metric in self.tasks[at].proportions for at in self._at(task))

    def _unit(self, metric: str, tasks: Sequence[int]) -> float:
        """The squared size of an unobserved change of a document's value.

        It is 1 for our metrics (a label, a nat). The values of other metrics can have any scale, so
        only changes as large as the observed ones are added.
        """
        return 0.0 if any(self.tasks[at].logged for at in tasks) else 1.0

    def _bootstrapped(
        self, metric: str, models: Models, tasks: Sequence[int], values: Array, margin: float
    ) -> Estimate:
        """Estimate a corpus metric, whose variance comes from bootstrap samples of the groups."""
        by_task = [_combined(self.tasks[at].replicates[metric], models) for at in tasks]
        replicates = np.mean(by_task, axis=0)
        if not np.isfinite(replicates).all():
            return undefined(float(values.mean()))
        deviations = replicates - replicates.mean(axis=1, keepdims=True)
        weights = BootstrapWeights(
            samples=replicates.shape[1],
            groups=self._weights_of_all(tasks),
        )
        return mean(values, variance_of(values, deviations, weights), margin=margin)

    def _unseen_variance(self, seen: float, models: Models, tasks: Sequence[int]) -> float:
        """Scale a variance by the factor that unobserved events add to the accuracy's variance.

        If no prediction differs, return the variance of the accuracy with these events.
        """
        values, contributions = self._statistic("acc", models, tasks)
        weights = self._weights("acc", tasks)
        squares, largest = self._squares("acc", models, tasks)
        least = weights.effective_documents**-2
        allowed = variance_with_unseen_event(
            max(largest, least), values, contributions, squares, weights
        ).whole
        of_accuracy = variance_of(values, contributions, weights).whole
        return seen * allowed / of_accuracy if of_accuracy > 0 else allowed

    def value(self, metric: str, models: Models, task: int | None = None) -> float:
        """The value of a metric without its interval; NaN if undefined."""
        return float(self._statistic(metric, models, self._at(task)).values.mean())

    def by_seed(self, metric: str, models: Models) -> Array:
        """A metric pooled over all settings for each seed, or pair of models, ``[S]``."""
        return self._statistic(metric, models, self._at(None)).values

    def pooled_accuracies(self, models: Models) -> Statistic:
        """Pooled accuracy differences of pairs of models ``[S]``, with the groups' contributions.

        The contributions are ``[S, G]``; those of one pair sum to zero.
        """
        return self._statistic("acc", models, self._at(None))

    @cached_property
    def weights(self) -> GroupWeights:
        """The weights of all groups in the mean over the settings."""
        return self._weights_of_all(self._at(None))

    def weights_of(self, task: int) -> GroupWeights:
        """The weights of the groups in one setting."""
        return self._weights_of_all([task])

    def _weights_of_all(self, tasks: Sequence[int]) -> GroupWeights:
        return self._weights_by_size([self.tasks[at].sums.sizes for at in tasks], tasks)

    def layers(self, name: str, models: Models) -> list[Interval]:
        """Estimate an entropy at each layer, pooled over the settings.

        Args:
            name: The metric, such as ``matrix_entropy_by_layer``.
            models: The models of an arm.

        Returns:
            One interval per layer, estimated in the same way as an entropy of the middle layers.
            Empty unless every task has the entropy, at the same number of layers.
        """
        sums = [task.sums for task in self.tasks]
        if not all(name in one.layers and one.layers_known[name].any() for one in sums):
            return []
        totals = [np.stack([one.layers[name][model] for model in models.of]) for one in sums]
        if len({of_task.shape[2] for of_task in totals}) > 1:
            return []
        known = [one.layers_known[name] for one in sums]
        weights = self._weights_by_size(known, self._at(None))
        intervals = []
        for layer in range(totals[0].shape[2]):
            by_task = [
                mean_influence(of_task[..., layer], sizes)
                for of_task, sizes in zip(totals, known, strict=True)
            ]
            values, contributions = self._pooled(by_task, self._at(None))
            unknown = np.count_nonzero(weights.shares) < 2
            estimate = (
                undefined(float(values.mean()))
                if unknown
                else mean(values, variance_of(values, contributions, weights))
            )
            intervals.append(interval_of(estimate))
        return intervals

    def _labelled(self, tasks: Sequence[int], prefix: str) -> list[LabelScores]:
        """The predictions of labels in tasks that have them; calibrated ones for `CALIBRATED`."""
        every = [self.tasks[at] for at in tasks]
        of = [task.calibrated if prefix == CALIBRATED else task.labelled for task in every]
        return [one for one in of if one is not None]

    def _plain_calibration_error(
        self, models: Models, tasks: Sequence[int], prefix: str
    ) -> Score | None:
        """The plain ECE without an interval: it is biased upwards, so it is not tested.

        Returns:
            None if a task has no labels, or no calibrated probabilities.
        """
        of = list(models.of)
        labelled = self._labelled(tasks, prefix)
        if len(labelled) < len(tasks):
            return None
        by_seed = np.mean([one.ece[of] for one in labelled], axis=0)
        calibrated = np.mean([one.ece_if_calibrated[of] for one in labelled])
        return Score(
            value=float(by_seed.mean()),
            by_seed=by_seed.tolist(),
            seed_sd=float(by_seed.std(ddof=1)) if len(of) > 1 else None,
            if_calibrated=float(calibrated),
        )

    def _chance_variance(self, models: Models, tasks: Sequence[int], prefix: str) -> float:
        """The variance of the mean miscalibration, or of a difference, of calibrated models.

        It is a lower limit for the estimated variance: if three seeds all happen to have the lowest
        miscalibration, both the seeds and their groups seem to vary little.
        """
        of = [*models.of, *models.minus]
        labelled = self._labelled(tasks, prefix)
        each = sum(float(one.chance_variance[of].sum()) for one in labelled)
        return each / (len(models.of) * len(tasks)) ** 2

    def _at(self, task: int | None) -> list[int]:
        return self._pooled_tasks if task is None else [task]

    def _groups_in(self, tasks: Sequence[int]) -> int:
        """The number of groups to which contributions belong: a single task has its own numbers."""
        return len(self.tasks[tasks[0]].sums.groups) if len(tasks) == 1 else self.groups

    def _places_in(self, tasks: Sequence[int]) -> list[Integers]:
        """The numbers of each task's groups."""
        if len(tasks) == 1:
            return [np.arange(self._groups_in(tasks))]
        return [self._places[at] for at in tasks]

    def _statistic(self, metric: str, models: Models, tasks: Sequence[int]) -> Statistic:
        """The mean over tasks by seed ``[S]``, and the contributions of all groups ``[S, G]``."""
        by_task = [_combine(self.tasks[at].statistics[metric], models) for at in tasks]
        return self._pooled(by_task, tasks)

    def _pooled(self, by_task: Sequence[Statistic], tasks: Sequence[int]) -> Statistic:
        seeds, groups = len(by_task[0].values), self._groups_in(tasks)
        values, contributions = np.zeros(seeds), np.zeros((seeds, groups))
        for of_task, places in zip(by_task, self._places_in(tasks), strict=True):
            values += of_task.values / len(tasks)
            count = of_task.influence.shape[1] * len(tasks)
            contributions[:, places] += of_task.influence / count
        return Statistic(values, contributions)

    def _weights(self, metric: str, tasks: Sequence[int]) -> GroupWeights:
        return self._weights_by_size([_sizes(self.tasks[at], metric) for at in tasks], tasks)

    def _weights_by_size(self, sizes: Sequence[Array], tasks: Sequence[int]) -> GroupWeights:
        groups = self._groups_in(tasks)
        shares, squares = np.zeros(groups), np.zeros(groups)
        for of_task, places in zip(sizes, self._places_in(tasks), strict=True):
            document = 1 / (of_task.sum() * len(tasks))
            shares[places] += of_task * document
            squares[places] += of_task * document**2
        return GroupWeights(shares, squares)

    def _squares(self, metric: str, models: Models, tasks: Sequence[int]) -> tuple[Array, float]:
        """Squared contributions of the documents to the mean over seeds.

        The metric must be a mean over documents.

        Returns:
            For each group, the sum over its documents, ``[G]``; and the largest square of one
            document.
        """
        groups = self._groups_in(tasks)
        squares, largest = np.zeros(groups), 0.0
        for at in tasks:
            members = self.tasks[at].sums.member if len(tasks) == 1 else self._members[at]
            values = self.tasks[at].values[metric].astype(np.float64)
            of = values[list(models.of)].mean(axis=0)
            if models.minus:
                of = of - values[list(models.minus)].mean(axis=0)
            known = np.isfinite(of)
            of = of[known]
            squared = ((of - of.mean()) / (len(of) * len(tasks))) ** 2
            squares += np.bincount(members[known], squared, groups)
            largest = max(largest, float(squared.max()))
        return squares, largest

    def _losses_and_wins(
        self, metric: str, models: Models, tasks: Sequence[int]
    ) -> tuple[float, float]:
        """Fractions of documents that only the second, or only the first, model has right."""
        losses = wins = 0.0
        for at in tasks:
            correct = self.tasks[at].values[metric]
            ahead = correct[list(models.of)] - correct[list(models.minus)]
            losses += float((ahead < 0).mean()) / len(tasks)
            wins += float((ahead > 0).mean()) / len(tasks)
        return losses, wins


def interval_of(estimate: Estimate | None) -> Interval:
    """The value and the interval of an estimate; null where they are not finite."""
    if estimate is None:
        return Interval(value=None)
    low, high = (end if math.isfinite(end) else None for end in (estimate.low, estimate.high))
    return Interval(value=estimate.value, low=low, high=high)


def _sizes(task: TaskScores, metric: str) -> Array:
    """The number of documents of each group for which a metric is known, ``[G]``."""
    if metric in task.values:
        known = np.isfinite(task.values[metric]).all(axis=0)
        if not known.all():
            member = np.searchsorted(task.sums.groups, task.groups)
            return np.bincount(member, known, len(task.sums.groups)).astype(np.float64)
    return task.sums.sizes


def _combine(statistic: Statistic, models: Models) -> Statistic:
    return Statistic(*(_combined(figures, models) for figures in statistic))


def _combined(figures: Array, models: Models) -> Array:
    """Figures of the models ``of``, or their differences to those of the models ``minus``."""
    of = figures[list(models.of)]
    return of - figures[list(models.minus)] if models.minus else of
