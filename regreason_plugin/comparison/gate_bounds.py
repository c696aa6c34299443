"""What is shown of a metric of one model, or of its change between two, as one-sided bounds.

A change is the candidate's metric minus the baseline's, turned round where lower is better, so
that below zero is always worse. Over several settings it is the mean of their changes, each
counted by its documents; of accuracy, nll and mae that is the mean over all documents.

Documents come in groups, which are what varies independently: t quantiles with the effective
number of groups less 1 as degrees of freedom (Kish, Survey Sampling, 1965: the squared sum of the
sizes over the sum of their squares). No bound collapses where little is seen to vary, as a normal
interval would: rare events that chance kept away, whole groups among them, are always allowed for.
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
    """A metric or a change of one, and what is shown of it."""

    def bounds(self, alpha: float) -> tuple[Array, Array]:
        """The lower and the upper bound, each missed with a probability of alpha."""


@dataclass(frozen=True)
class AccuracyChange:
    """A change of accuracy: Tango's score interval on counts divided by the design effect.

    Attributes:
        losses: Documents that the baseline alone is right about, ``[...]``.
        wins: Documents that the candidate alone is right about, ``[...]``.
        documents: How many there are.
        design_effect: What the groups multiply the variance by, ``[...]``.
        degrees: Of freedom.
    """

    losses: Array
    wins: Array
    documents: float
    design_effect: Array
    degrees: float

    def bounds(self, alpha: float) -> tuple[Array, Array]:
        """As `Bounded`."""
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
        documents: How many there are.
        design_effect: What the groups multiply the variance by.
        degrees: Of freedom.
    """

    value: float
    documents: float
    design_effect: float
    degrees: float

    def bounds(self, alpha: float) -> tuple[Array, Array]:
        """As `Bounded`."""
        documents = self.documents / self.design_effect
        low, high = wilson_bounds(self.value, documents, critical(alpha, self.degrees))
        return np.asarray(low), np.asarray(high)


@dataclass(frozen=True)
class OtherMetric:
    """Another metric, or a change of it: a t interval over groups, skewed for rare events.

    A true value of d instead of the value v seen would mean that |v - d| / step rare events of
    that size were missed or met by chance, each of variance step^2. So the bounds are the d with

        (|v - d| - step / 2)^2 = t^2 (se^2 + step |v - d|)

    Where much varies, step is small beside se, and they are v -+ t se. The step is the largest
    influence of a group seen, at least 1 (a label, a nat, a document's share of a rate) in each
    document of a group of the size of `size_of_several`.

    Attributes:
        value: Itself, ``[...]``.
        se: Its standard error, from the influence of each group: of a mean the cluster-robust
            one, of macro-F1, kappa, the area under the ROC curve and the miscalibration that of
            the delete-one-group jackknife.
        step: The size of a rare event.
        degrees: Of freedom.
    """

    value: Array
    se: Array
    step: Array
    degrees: float

    def bounds(self, alpha: float) -> tuple[Array, Array]:
        """As `Bounded`."""
        t, step = critical(alpha, self.degrees), self.step
        half = (1 + t**2) * step / 2
        half = half + t * np.sqrt(self.se**2 + step**2 / 2 + t**2 * step**2 / 4)
        return self.value - half, self.value + half


def accuracy_change(wins: Array, losses: Array, sizes: Array) -> AccuracyChange:
    """The change of accuracy out of counts by group.

    Args:
        wins: Documents that the candidate alone is right about, ``[..., groups]``.
        losses: Documents that the baseline alone is right about, likewise.
        sizes: Documents of each group, ``[groups]``; two groups or more.
    """
    return AccuracyChange(
        losses=losses.sum(axis=-1),
        wins=wins.sum(axis=-1),
        documents=float(sizes.sum()),
        design_effect=design_effect(wins - losses, wins + losses, sizes),
        degrees=GroupWeights.of_sizes(sizes).effective_groups - 1,
    )


def accuracy(right: Array, sizes: Array) -> Accuracy:
    """One model's accuracy out of counts by group.

    Args:
        right: Documents that it is right about, ``[groups]``.
        sizes: Documents of each group, ``[groups]``; two groups or more.
    """
    documents = float(sizes.sum())
    return Accuracy(
        value=float(right.sum()) / documents,
        documents=documents,
        design_effect=float(design_effect(right, right, sizes)),
        degrees=GroupWeights.of_sizes(sizes).effective_groups - 1,
    )


def other_metric(value: Array, influence: Array, sizes: Array) -> OtherMetric:
    """Another metric, or a change of it.

    Args:
        value: Itself, better above, ``[...]``.
        influence: What each group adds to it, ``[..., groups]``; sums to zero.
        sizes: Documents of each group, ``[groups]``; two groups or more.
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
    """What groups multiply the variance of a mean over documents by.

    With documents of a group correlated by rho it is 1 + rho (m - 1), for m the size of the group
    that a document is in on the average (Kish 1965). rho is estimated from the pairs of documents
    of one group: the sum of the products of their deviations over what it would be if the
    documents of a group were all the same. Rare events that take whole groups along leave no trace
    while none has happened, least of all where many documents are alone in their group. So to both
    sums the pairs of an unseen event are added: those of one document with its group, and a tenth
    of those of a whole group. Without a disagreement in a group of several, rho is thus 1. (How
    much to add is the least that keeps the gate's errors in
    ``tests/bench/operating_characteristics.py``.)

    Where the variance of the groups' totals is larger than that, it counts as it is: of many
    documents, of which most are alone, one group that failed as a whole is most of the variance.

    Args:
        totals: Sums of the documents' values by group, ``[..., groups]``.
        squares: Sums of their squares, likewise.
        sizes: Documents of each group, ``[groups]``; two groups or more.

    Returns:
        1 or more, ``[...]``.
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
    """The size of the group that a document with others in its group is in, on the average.

    Args:
        sizes: Documents of each group, ``[groups]``.

    Returns:
        1 where every document is alone.
    """
    several = sizes[sizes > 1]
    return float((several**2).sum() / several.sum()) if len(several) else 1.0


@lru_cache(maxsize=1024)
def critical(alpha: float, degrees: float) -> float:
    """The value that Student's t is above with a probability of alpha."""
    from scipy.stats import t

    return float(t.isf(alpha, degrees))
