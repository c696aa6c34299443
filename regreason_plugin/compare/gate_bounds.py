"""By how much a metric changed between two models, as one-sided bounds for the gate.

A change is the candidate's metric minus the baseline's, turned round where lower is better, so
that below zero is always worse. Over several settings it is the mean of their changes, each
counted by its documents; of accuracy, nll and mae that is the mean over all documents.

Documents come in groups, which are what varies independently: t quantiles with groups - 1 degrees
of freedom. Neither bound collapses where the two models hardly ever differ, as a normal interval
would: a few rare events more, which chance kept away, are always allowed for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from regreason_plugin.compare.score_interval import score_bounds
from regreason_plugin.metrics.answers import Array

# More documents than this many times those there are is said to be too many to name.
_MOST_TIMES = 1e6


class Change(Protocol):
    """A change of a metric, and what can be said of it."""

    @property
    def value(self) -> Array:
        """The change."""

    def bounds(self, alpha: float, times: float = 1.0) -> tuple[Array, Array]:
        """The lower and the upper bound, each missed with a probability of alpha.

        Args:
            alpha: Of one side.
            times: As if there were this many times as many documents and groups of the kind.
        """


@dataclass(frozen=True)
class AccuracyChange:
    """Of accuracy: Tango's score interval, widened for groups.

    The counts are divided by the design effect: the variance of the mean difference with groups
    taken into account over that without, at least 1. To both variances one disagreement is added
    that takes a whole group along, for a group of the size that a document is in on the average
    (Kish: sum of squared sizes over the documents). So where nothing is seen to differ the
    groups count as one document each, and with many disagreements only what is seen counts.

    Attributes:
        losses: Documents that the baseline alone is right about, ``[...]``.
        wins: Documents that the candidate alone is right about, ``[...]``.
        documents: How many there are.
        groups: In how many groups.
        kish: The mean size of a document's group.
        clustered: Sum of the squared deviations of the groups' totals of the differences.
        unclustered: Of the documents' differences, likewise.
    """

    losses: Array
    wins: Array
    documents: int
    groups: int
    kish: float
    clustered: Array
    unclustered: Array

    @property
    def value(self) -> Array:
        """As `Change`."""
        return (self.wins - self.losses) / self.documents

    def design_effect(self, times: float = 1.0) -> Array:
        """What the counts are divided by."""
        n, groups = self.documents * times, self.groups * times
        clustered = self.clustered * times * groups / (groups - 1) + self.kish
        unclustered = self.unclustered * times * n / (n - 1) + 1
        return np.maximum(clustered / unclustered, 1)

    def bounds(self, alpha: float, times: float = 1.0) -> tuple[Array, Array]:
        """As `Change`."""
        counts = times / self.design_effect(times)
        return score_bounds(
            self.losses * counts,
            self.wins * counts,
            self.documents * counts,
            _critical(alpha, self.groups * times),
            correction=0.5,
        )


@dataclass(frozen=True)
class MetricChange:
    """Of another metric: a t interval from the groups' influences, skewed for rare events.

    A true change of d instead of the value v seen would mean that |v - d| / step rare events of
    that size were missed or met by chance, each of variance step^2. So the bounds are the d with

        (|v - d| - step / 2)^2 = t^2 (se^2 + step |v - d|)

    Where much differs, step is small beside se, and they are v -+ t se. The step is the largest
    influence of a group seen, at least 1 (a label, a nat, a document's share of a rate) in each
    document of a group of Kish's size.

    Attributes:
        value: As `Change`.
        se: Its standard error, from the influence of each group: of a mean the cluster-robust
            one, of macro-F1, kappa, the area under the ROC curve and ECE that of the
            delete-one-group jackknife.
        step: The size of a rare event.
        groups: How many.
    """

    value: Array
    se: Array
    step: Array
    groups: int

    def bounds(self, alpha: float, times: float = 1.0) -> tuple[Array, Array]:
        """As `Change`."""
        t, step = _critical(alpha, self.groups * times), self.step / times
        variance = self.se**2 / times
        half = (1 + t**2) * step / 2
        half = half + t * np.sqrt(variance + step**2 / 2 + t**2 * step**2 / 4)
        return self.value - half, self.value + half


def accuracy_change(wins: Array, losses: Array, sizes: Array) -> AccuracyChange:
    """The change of accuracy out of counts by group.

    Args:
        wins: Documents that the candidate alone is right about, ``[..., groups]``.
        losses: Documents that the baseline alone is right about, likewise.
        sizes: Documents of each group, ``[groups]``; two groups or more.
    """
    documents, groups = int(sizes.sum()), len(sizes)
    b, c = losses.sum(axis=-1), wins.sum(axis=-1)
    mean = np.asarray((c - b) / documents)
    return AccuracyChange(
        losses=b,
        wins=c,
        documents=documents,
        groups=groups,
        kish=float((sizes**2).sum() / documents),
        clustered=((wins - losses - mean[..., None] * sizes) ** 2).sum(axis=-1),
        unclustered=b + c - documents * mean**2,
    )


def metric_change(value: Array, influence: Array, sizes: Array) -> MetricChange:
    """The change of another metric.

    Args:
        value: The change, better above zero, ``[...]``.
        influence: What each group adds to it, ``[..., groups]``; sums to zero.
        sizes: Documents of each group, ``[groups]``; two groups or more.
    """
    groups = len(sizes)
    step = (sizes**2).sum() / sizes.sum() ** 2
    return MetricChange(
        value=value,
        se=np.sqrt(groups / (groups - 1) * (influence**2).sum(axis=-1)),
        step=np.maximum(np.abs(influence).max(axis=-1), step),
        groups=groups,
    )


def times_needed(change: Change, max_drop: float, alpha: float) -> float | None:
    """How many times as many documents would decide, if the change stays what it is.

    Args:
        change: One, not several.
        max_drop: The change that must not be fallen short of, turned to above zero.
        alpha: Of one side.

    Returns:
        At least 1; None if no number is enough or it is beyond a million.
    """
    above = float(change.value) > -max_drop

    def decided(times: float) -> bool:
        low, high = change.bounds(alpha, times)
        return float(low) > -max_drop if above else float(high) < -max_drop

    return _first(decided)


def _first(decided: Callable[[float], bool]) -> float | None:
    """The least number of times from 1 that decides, to 1 in 1,000, where more decide too."""
    least, most = 1.0, _MOST_TIMES
    if not decided(most):
        return None
    while most / least > 1.001:
        middle = (least * most) ** 0.5
        least, most = (least, middle) if decided(middle) else (middle, most)
    return most


def _critical(alpha: float, groups: float) -> Array:
    from scipy.stats import t

    return np.asarray(t.isf(alpha, groups - 1))
