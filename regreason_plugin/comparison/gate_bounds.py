"""One-sided confidence bounds for one model's metric, or for its change between two models.

A change is the candidate's metric minus the baseline's, with the sign reversed if lower is better:
a change below zero is always worse. Over several settings it is the mean of their changes, weighted
by their numbers of documents; for accuracy, nll and mae that is the mean over all documents.

Documents come in groups, and the groups are the independent units. Critical values are t quantiles
whose degrees of freedom are the effective number of groups minus 1 (Kish, Survey Sampling, 1965:
the squared sum of the sizes over the sum of the squared sizes). A normal interval collapses if
little variation is observed. These bounds do not: they always allow for rare events that happened
not to occur, including events that affect whole groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from regreason_plugin.comparison.group_variance import GroupWeights
from regreason_plugin.comparison.score_interval import score_bounds, wilson_bounds
from regreason_plugin.metrics.answers import Array


class Bounded(Protocol):
    """An estimate, of a metric or of its change, that has one-sided confidence bounds."""

    def bounds(self, alpha: float) -> tuple[Array, Array]:
        """The lower and the upper bound; the true value lies beyond each with probability alpha."""


@dataclass(frozen=True)
class AccuracyChange:
    """A change of accuracy: Tango's score interval on counts divided by the design effect.

    Attributes:
        losses: Number of documents that only the baseline classifies correctly, ``[...]``.
        wins: Number of documents that only the candidate classifies correctly, ``[...]``.
        documents: Number of documents.
        design_effect: The factor by which groups increase the variance, ``[...]``.
        degrees: Degrees of freedom.
    """

    losses: Array
    wins: Array
    documents: float
    design_effect: Array
    degrees: float

    def bounds(self, alpha: float) -> tuple[Array, Array]:
        """See `Bounded.bounds`."""
        return score_bounds(
            self.losses / self.design_effect,
            self.wins / self.design_effect,
            self.documents / self.design_effect,
            np.asarray(critical(alpha, self.degrees)),
            correction=0.5,
        )


@dataclass(frozen=True)
class Accuracy:
    """One model's accuracy: Wilson's score interval on counts divided by the design effect.

    Attributes:
        value: The accuracy.
        documents: Number of documents.
        design_effect: The factor by which groups increase the variance.
        degrees: Degrees of freedom.
    """

    value: float
    documents: float
    design_effect: float
    degrees: float

    def bounds(self, alpha: float) -> tuple[Array, Array]:
        """See `Bounded.bounds`."""
        documents = self.documents / self.design_effect
        low, high = wilson_bounds(self.value, documents, critical(alpha, self.degrees))
        return np.asarray(low), np.asarray(high)


@dataclass(frozen=True)
class OtherMetric:
    """Another metric, or its change: a t interval over groups, widened for rare events.

    If the true value is d and the observed value is v, then |v - d| / step rare events of size step
    were missed, or occurred, by chance; each has the variance step^2. The bounds are therefore the
    solutions d of

        (|v - d| - step / 2)^2 = t^2 (se^2 + step |v - d|)

    If the metric varies a lot, step is small compared with se, and the bounds are v -+ t se. The
    step is the largest observed influence of a group. It is at least the influence of a change by 1
    (a label, a nat, one document in a rate) in every document of a group of the size
    `size_of_several`.

    Attributes:
        value: The metric or its change, ``[...]``.
        se: The standard error, from the influence of each group: for a mean the cluster-robust one,
            for macro-F1, kappa, the area under the ROC curve and the miscalibration the one of the
            delete-one-group jackknife.
        step: The size of a rare event.
        degrees: Degrees of freedom.
    """

    value: Array
    se: Array
    step: Array
    degrees: float

    def bounds(self, alpha: float) -> tuple[Array, Array]:
        """See `Bounded.bounds`."""
        t, step = critical(alpha, self.degrees), self.step
        half = (1 + t**2) * step / 2
        half = half + t * np.sqrt(self.se**2 + step**2 / 2 + t**2 * step**2 / 4)
        return self.value - half, self.value + half


def accuracy_change(wins: Array, losses: Array, sizes: Array) -> AccuracyChange:
    """Build the change of accuracy from counts by group.

    Args:
        wins: Number of documents that only the candidate classifies correctly, ``[..., groups]``.
        losses: Number of documents that only the baseline classifies correctly, ``[..., groups]``.
        sizes: Number of documents of each group, ``[groups]``; two groups or more.
    """
    return AccuracyChange(
        losses=losses.sum(axis=-1),
        wins=wins.sum(axis=-1),
        documents=float(sizes.sum()),
        design_effect=design_effect(wins - losses, wins + losses, sizes),
        degrees=GroupWeights.of_sizes(sizes).effective_groups - 1,
    )


def accuracy(right: Array, sizes: Array) -> Accuracy:
    """Build one model's accuracy from counts by group.

    Args:
        right: Number of documents that the model classifies correctly, ``[groups]``.
        sizes: Number of documents of each group, ``[groups]``; two groups or more.
    """
    documents = float(sizes.sum())
    return Accuracy(
        value=float(right.sum()) / documents,
        documents=documents,
        design_effect=float(design_effect(right, right, sizes)),
        degrees=GroupWeights.of_sizes(sizes).effective_groups - 1,
    )


def other_metric(value: Array, influence: Array, sizes: Array) -> OtherMetric:
    """Build another metric, or its change, from the influence of each group.

    Args:
        value: The metric or its change, with the sign such that higher is better, ``[...]``.
        influence: The influence of each group on ``value``, ``[..., groups]``; sums to zero.
        sizes: Number of documents of each group, ``[groups]``; two groups or more.
    """
    groups = GroupWeights.of_sizes(sizes).effective_groups
    step = size_of_several(sizes) / sizes.sum()
    return OtherMetric(
        value=value,
        se=np.sqrt(groups / (groups - 1) * (influence**2).sum(axis=-1)),
        step=np.maximum(np.abs(influence).max(axis=-1), step),
        degrees=groups - 1,
    )


def design_effect(totals: Array, squares: Array, sizes: Array) -> Array:
    """The factor by which groups increase the variance of a mean over documents.

    If documents of a group have the correlation rho, the factor is 1 + rho (m - 1), where m is the
    average size of a document's group (Kish 1965). rho is estimated from the pairs of documents of
    one group: the sum of the products of their deviations, divided by the value that this sum would
    have if all documents of a group were identical. Rare events that affect whole groups cannot be
    estimated from data in which none has occurred, least of all if many documents are alone in
    their group. So the pairs of an unobserved event are added to both sums: the pairs of one
    document with its group, and a tenth of the pairs of a whole group. Without a disagreement in a
    group of several documents, rho is therefore 1. (The amount added is the smallest that keeps the
    gate's error rates in ``tests/bench/operating_characteristics.py``.)

    If the variance of the groups' totals is larger than that, its ratio to the documents' own
    variance is used instead. An example is a sample in which most documents are alone in their
    group, and one group that failed as a whole makes up most of the variance.

    Args:
        totals: Sum of the documents' values in each group, ``[..., groups]``.
        squares: Sum of the documents' squared values in each group, ``[..., groups]``.
        sizes: Number of documents of each group, ``[groups]``; two groups or more.

    Returns:
        The design effect, 1 or more, ``[...]``.
    """
    documents, groups, several = (
        sizes.sum(),
        GroupWeights.of_sizes(sizes).effective_groups,
        size_of_several(sizes),
    )
    mean = (totals.sum(axis=-1) / documents)[..., None]
    alone = squares - 2 * mean * totals + sizes * mean**2
    of_pairs = ((totals - mean * sizes) ** 2 - alone).sum(axis=-1)
    at_most = ((sizes - 1) * alone).sum(axis=-1)
    unseen = (several - 1) * (1 + several / 10)
    alike = np.clip((of_pairs + unseen) / np.maximum(at_most + unseen, 1e-12), 0, 1)
    expected = 1 + alike * (documents / groups - 1)
    seen = 1 + of_pairs / np.maximum(alone.sum(axis=-1), 1e-12)
    larger: Array = np.maximum(expected, seen)
    return larger


def size_of_several(sizes: Array) -> float:
    """The average size of a document's group, over the documents that are not alone in their group.

    Args:
        sizes: Number of documents of each group, ``[groups]``.

    Returns:
        The size in documents; 1 if every document is alone.
    """
    several = sizes[sizes > 1]
    return float((several**2).sum() / several.sum()) if len(several) else 1.0


@lru_cache(maxsize=1024)
def critical(alpha: float, degrees: float) -> float:
    """The critical value that Student's t exceeds with probability alpha."""
    from scipy.stats import t

    return float(t.isf(alpha, degrees))
