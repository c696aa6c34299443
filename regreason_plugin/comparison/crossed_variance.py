"""How sure a figure is, when seeds are crossed with documents that come in groups.

Two arms are scored on the same documents, with the same seeds. Documents of one group (a
conversation's axes, answers to one question) are alike, and every seed meets every document, so
neither the documents of a group nor the seeds are as many independent observations as there are
numbers. A group's contribution c[s, g] is the part of a seed's figure that it moves: for a mean
the weighted sum of its documents' deviations, for another statistic what the jackknife finds; the
contributions of a seed sum to zero. With seeds and groups as random effects (Searle, Casella and
McCulloch, Variance Components, 1992, chapter 4), three sums estimate what the mean over S seeds
owes to them:

    A = variance of the seeds' figures / S                    seeds, and what is left, over S
    B = CR2 variance of the seeds' mean contributions         groups, and what is left, over S
    R = the same of each seed's deviations from that mean     what is left, over S

Its variance is A + (B - R)+, and its distribution is Behrens's and Fisher's, since A has S - 1
degrees of freedom and B many more. Three seeds thus say little where seeds matter, and nothing is
lost where they do not. Where all seeds have the same figure, as counts of documents can by chance,
it is B.

Fewer than three seeds say too little of seeds: the variance is then B alone, and what is found
speaks of these trained models only.

An accuracy is counted in whole documents, and where few documents decide, the normal interval of a
mean fails. `share` and `difference_of_shares` therefore take score intervals on as many documents
as would have that variance if they were independent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from regreason_plugin.comparison.behrens_fisher import critical, tail
from regreason_plugin.comparison.group_variance import GroupWeights
from regreason_plugin.comparison.score_interval import (
    score_bounds,
    score_statistic,
    wilson_bounds,
)
from regreason_plugin.metrics.answers import Array

ENOUGH_SEEDS = 3
# A variance this small beside another is one of equal numbers.
_ROUNDING = 1e-12
Over = Literal["seeds and groups", "groups"]


@dataclass(frozen=True)
class Variance:
    """The variance of a mean over seeds and groups.

    Attributes:
        seeds: What the seeds make of it; 0 with fewer than three.
        groups: What groups make of it beside.
        rest: The part of ``seeds`` that more groups would take away.
        df_seeds: Degrees of freedom of the first; 0 with fewer than three seeds.
        df_groups: Of the second.
    """

    seeds: float
    groups: float
    rest: float
    df_seeds: int
    df_groups: float

    @property
    def whole(self) -> float:
        """Of the mean."""
        return self.seeds + self.groups

    @property
    def of_seeds(self) -> float:
        """The seeds' share, 0 to 1."""
        return self.seeds / self.whole if self.whole > 0 else 0.0

    def at_least(self, whole: float) -> Variance:
        """The same with what is missing to this variance of the mean added to the groups' part."""
        return replace(self, groups=self.groups + max(whole - self.whole, 0.0))

    @property
    def over(self) -> Over:
        """What is concluded from it speaks of."""
        return "seeds and groups" if self.df_seeds else "groups"

    def critical(self, level: float) -> float:
        """What the deviation over the standard error stays within with this probability."""
        return critical(level, self.of_seeds, self.df_seeds, self.df_groups)

    def tail(self, statistic: float) -> float:
        """The one-sided probability of more than a deviation over the standard error."""
        return float(tail(statistic, self.of_seeds, self.df_seeds, self.df_groups))


@dataclass(frozen=True)
class Estimate:
    """A figure or a difference, the mean over seeds. What is undefined is NaN.

    Attributes:
        value: Itself.
        se: Its standard error.
        low: Lower end of the interval.
        high: Upper end.
        p: Two-sided, against zero.
        p_same: Of two one-sided tests against -margin and +margin; NaN without a margin.
        over: What it speaks of: ``seeds and groups``, or ``groups`` for these trained models only.
        variance: What its standard error is made from; None where it is undefined.
    """

    value: float
    se: float
    low: float
    high: float
    p: float
    p_same: float
    over: Over
    variance: Variance | None = None


def undefined(value: float) -> Estimate:
    """A figure of which one group, or none, says how it varies."""
    nan = float("nan")
    return Estimate(value, nan, nan, nan, nan, nan, "groups")


def variance_of(
    values: Array, contributions: Array, weights: GroupWeights, alike: float = 1.0
) -> Variance:
    """What seeds and groups make of the variance of a mean.

    Args:
        values: A figure or difference by seed, ``[S]``.
        contributions: Of the groups, ``[S, G]``; two groups or more.
        weights: Of the groups.
        alike: The correlation of two documents of a group, for the degrees of freedom.
    """
    seeds = len(values)
    of_groups = float(weights.variance(contributions.mean(axis=0)))
    df = weights.degrees_of_freedom(alike)
    if seeds < ENOUGH_SEEDS:
        return Variance(0.0, of_groups, 0.0, 0, df)
    of_seeds = float(values.var(ddof=1)) / seeds
    if of_seeds <= _ROUNDING * of_groups:
        # Counts of documents can be equal by chance, and A says nothing of what is left.
        return Variance(0.0, of_groups, 0.0, seeds - 1, df)
    left = contributions - contributions.mean(axis=0)
    rest = float(weights.variance(left).sum()) / (seeds * (seeds - 1))
    return Variance(of_seeds, max(of_groups - rest, 0.0), min(rest, of_seeds), seeds - 1, df)


def variance_of_gap(values: Array, first: Variance, second: Variance) -> Variance:
    """The variance of one mean minus another, over the same seeds and over groups of their own.

    The seeds act on both means, so their part is seen in the differences by seed. The two samples
    share no group, so the groups' parts add, with the degrees of freedom of a sum of two variances
    (Satterthwaite, Biometrics Bulletin 2, 1946; Welch, Biometrika 34, 1947).

    Args:
        values: The differences by seed, ``[S]``.
        first: Of the one mean over these seeds.
        second: Of the other.
    """
    seeds, groups = len(values), first.groups + second.groups
    parts = [(one.groups / groups, one.df_groups) for one in (first, second) if one.groups > 0]
    df = 1 / sum(share**2 / freedom for share, freedom in parts) if parts else first.df_groups
    if seeds < ENOUGH_SEEDS:
        return Variance(0.0, groups, 0.0, 0, df)
    of_seeds, rest = float(values.var(ddof=1)) / seeds, first.rest + second.rest
    if of_seeds <= _ROUNDING * groups:
        return Variance(0.0, groups + rest, 0.0, seeds - 1, df)
    return Variance(of_seeds, groups, min(rest, of_seeds), seeds - 1, df)


def mean(
    values: Array,
    variance: Variance,
    *,
    margin: float = float("nan"),
    level: float = 0.95,
) -> Estimate:
    """A figure of any kind, with a symmetric interval.

    Args:
        values: By seed, ``[S]``.
        variance: Of their mean.
        margin: Differences within it, either way, count as the same.
        level: Of the interval.
    """
    value, se = float(values.mean()), variance.whole**0.5
    over = variance.over
    if se == 0:
        # Every seed and group differs by the same amount, as a model and its copy do by none.
        same = float("nan") if np.isnan(margin) else float(abs(value) >= margin)
        return Estimate(value, 0.0, value, value, float(value == 0), same, over)
    half = variance.critical(level) * se
    p_same = float("nan")
    if not np.isnan(margin):
        p_same = variance.tail((margin - abs(value)) / se)
    p = 2 * variance.tail(abs(value) / se)
    return Estimate(value, se, value - half, value + half, p, p_same, over, variance)


def share(
    values: Array,
    contributions: Array,
    squares: Array,
    weights: GroupWeights,
    *,
    level: float = 0.95,
) -> Estimate:
    """An accuracy, with Wilson's score interval on as many documents as vary like it.

    Args:
        values: By seed, ``[S]``.
        contributions: Of the groups, ``[S, G]``.
        squares: The sums of the squares of their documents' own contributions to the mean over
            seeds, ``[G]``.
        weights: Of the groups.
        level: Of the interval.
    """
    value = float(values.mean())
    plain = value * (1 - value)
    variance, documents = _score_scale(plain, values, contributions, squares, weights)
    low, high = wilson_bounds(value, documents, variance.critical(level))
    nan = float("nan")
    return Estimate(value, variance.whole**0.5, low, high, nan, nan, variance.over, variance)


def difference_of_shares(
    losses: float,
    wins: float,
    values: Array,
    contributions: Array,
    squares: Array,
    weights: GroupWeights,
    *,
    margin: float = float("nan"),
    level: float = 0.95,
) -> Estimate:
    """A difference of accuracies, with Tango's score interval on as many documents as vary like it.

    Args:
        losses: The weighted share of documents that the baseline alone is right about, the mean
            over seeds.
        wins: The same of the other arm.
        values: As `share`, of the differences.
        contributions: As `share`.
        squares: As `share`.
        weights: Of the groups.
        margin: Differences within it, either way, count as the same.
        level: Of the interval.
    """
    value = wins - losses
    plain = losses + wins - value**2
    variance, documents = _score_scale(plain, values, contributions, squares, weights)
    lost, won, of = (
        np.asarray(count) for count in (losses * documents, wins * documents, documents)
    )

    def statistic(difference: float) -> float:
        return float(score_statistic(lost, won, of, np.asarray(difference), correction=0.5))

    reach = np.asarray(variance.critical(level))
    low, high = score_bounds(lost, won, of, reach, correction=0.5)
    return Estimate(
        value,
        variance.whole**0.5,
        float(low),
        float(high),
        min(2 * variance.tail(abs(statistic(0.0))), 1.0),
        max(variance.tail(statistic(-margin)), variance.tail(-statistic(margin))),
        variance.over,
        variance,
    )


def _score_scale(
    plain: float, values: Array, contributions: Array, squares: Array, weights: GroupWeights
) -> tuple[Variance, float]:
    """A variance that is never 0, and of how many independent documents it would be.

    The unseen event is a document that only one of two models is right about, as much of it as
    such documents keep after the mean over seeds.

    Args:
        plain: The variance of one document of one seed.
        values: As `share`.
        contributions: As `share`.
        squares: As `share`.
        weights: As `share`.
    """
    documents = weights.effective_documents
    event = (float(squares.sum()) + 1 / documents**2) / (plain * documents + 1)
    variance = with_unseen(event, values, contributions, squares, weights)
    return variance, (plain + 1 / documents) / variance.whole


def with_unseen(
    event: float, values: Array, contributions: Array, squares: Array, weights: GroupWeights
) -> Variance:
    """The variance of a mean, at least as large as if all documents' groups went along with them.

    Where few documents make a difference, or none, they do not tell how groups vary: the groups
    that weigh most may show none. So it is at least the documents' own variance times Kish's design
    effect, for documents as alike as they are seen to be; and one event is added, of a document
    that takes its group along as far.

    Args:
        event: The square of a document's contribution in it.
        values: As `share`.
        contributions: As `share`.
        squares: As `share`.
        weights: As `share`.
    """
    alike = weights.alikeness(contributions.mean(axis=0), squares, event)
    variance = variance_of(values, contributions, weights, alike)
    effect = 1 + alike * (weights.documents_a_group - 1)
    expected = float(squares.sum()) * effect - variance.rest
    return replace(variance, groups=max(variance.groups, expected) + event * effect)
