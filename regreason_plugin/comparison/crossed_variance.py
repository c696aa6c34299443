"""Standard errors of a figure when training seeds are crossed with groups of documents.

Two arms are scored on the same documents and trained with the same seeds. Documents of one group
(the axes of one conversation, the answers to one question) are correlated, and every seed is scored
on every document. So scores of the same group, or of the same seed, are not independent
observations.

A group's contribution c[s, g] is the part of seed s's figure that comes from group g: for a mean,
the weighted sum of the deviations of the group's documents; for another statistic, the influence
that the jackknife gives. The contributions of one seed sum to zero. Seeds and groups are random
effects (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4). With the variance
components V_seed, V_group and V_residual of the figure, three quantities estimate the variance of
the mean over S seeds:

    A = variance of the seeds' figures / S
        estimates (V_seed + V_residual) / S
    B = CR2 variance of the contributions, averaged over seeds
        estimates V_group + V_residual / S
    R = sum over seeds of the CR2 variance of the deviations from these averages / (S (S - 1))
        estimates V_residual / S

The variance of the mean is A + (B - R)+. A has S - 1 degrees of freedom and B has many more, so the
mean's deviation over its standard error has a Behrens-Fisher distribution. With three seeds, the
interval is therefore wide if the seed variance matters, and about as narrow as an interval over
groups if it does not. If all seeds have the same figure, which can happen by chance when the figure
counts documents, the variance is B.

Fewer than three seeds do not give a usable seed variance. The variance is then B alone, and every
conclusion is about these trained models only.

An accuracy is a count of documents, and the normal interval of a mean fails where few documents
decide. `share` and `accuracy_difference` therefore use score intervals. Their sample size is the
number of independent documents that would have the same variance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from regreason_plugin.comparison.behrens_fisher import critical, tail
from regreason_plugin.comparison.group_variance import BootstrapWeights, GroupWeights
from regreason_plugin.comparison.score_interval import (
    score_bounds,
    score_statistic,
    wilson_bounds,
)
from regreason_plugin.metrics.answers import Array

ENOUGH_SEEDS = 3
# A variance below this fraction of another is rounding error: all its numbers are equal.
_ROUNDING = 1e-12
Over = Literal["seeds and groups", "groups"]


@dataclass(frozen=True)
class Variance:
    """The variance of a mean over seeds and groups.

    Attributes:
        seeds: The part that comes from the training seeds, including the residual; 0 with fewer
            than three seeds.
        groups: The additional part that comes from the groups of documents.
        rest: The residual part of ``seeds``, which more groups of documents reduce.
        df_seeds: Degrees of freedom of ``seeds``; 0 with fewer than three seeds.
        df_groups: Degrees of freedom of ``groups``.
    """

    seeds: float
    groups: float
    rest: float
    df_seeds: int
    df_groups: float

    @property
    def whole(self) -> float:
        """The variance of the mean, from seeds and groups together."""
        return self.seeds + self.groups

    @property
    def of_seeds(self) -> float:
        """The fraction of the variance that comes from the seeds, 0 to 1."""
        return self.seeds / self.whole if self.whole > 0 else 0.0

    def at_least(self, whole: float) -> Variance:
        """Raise the groups' part until the variance of the mean is at least ``whole``."""
        return replace(self, groups=self.groups + max(whole - self.whole, 0.0))

    @property
    def over(self) -> Over:
        """The random effects that a conclusion from this variance generalises over."""
        return "seeds and groups" if self.df_seeds else "groups"

    def critical(self, level: float) -> float:
        """The two-sided critical value of the mean's deviation over its standard error."""
        return critical(level, self.of_seeds, self.df_seeds, self.df_groups)

    def tail(self, statistic: float) -> float:
        """The one-sided probability of a deviation above ``statistic`` standard errors."""
        return float(tail(statistic, self.of_seeds, self.df_seeds, self.df_groups))


@dataclass(frozen=True)
class Estimate:
    """A figure or a difference, averaged over seeds. Undefined values are NaN.

    Attributes:
        value: The estimate.
        se: The standard error of ``value``.
        low: Lower end of the confidence interval.
        high: Upper end of the confidence interval.
        p: Two-sided p value against zero.
        p_same: p value of the equivalence test: two one-sided tests against -margin and +margin;
            NaN without a margin.
        over: The random effects that the interval generalises over: ``seeds and groups``, or
            ``groups`` for these trained models only.
        variance: The variance behind ``se``; None if it is undefined.
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
    """A figure without a standard error, because there are fewer than two groups."""
    nan = float("nan")
    return Estimate(value, nan, nan, nan, nan, nan, "groups")


def variance_of(
    values: Array,
    contributions: Array,
    weights: GroupWeights | BootstrapWeights,
    alike: float = 1.0,
) -> Variance:
    """The variance of a mean over seeds, from seeds and groups.

    Args:
        values: A figure or difference by seed, ``[S]``.
        contributions: The groups' contributions, ``[S, G]``; two groups or more.
        weights: The groups' weights.
        alike: The correlation of two documents of a group, for the degrees of freedom.
    """
    seeds = len(values)
    of_groups = float(weights.variance(contributions.mean(axis=0)))
    df = weights.degrees_of_freedom(alike)
    if seeds < ENOUGH_SEEDS:
        return Variance(0.0, of_groups, 0.0, 0, df)
    of_seeds = float(values.var(ddof=1)) / seeds
    if of_seeds <= _ROUNDING * of_groups:
        # Counts of documents can be equal by chance. A then does not estimate the residual, so no
        # residual may be subtracted from B.
        return Variance(0.0, of_groups, 0.0, seeds - 1, df)
    left = contributions - contributions.mean(axis=0)
    rest = float(weights.variance(left).sum()) / (seeds * (seeds - 1))
    return Variance(of_seeds, max(of_groups - rest, 0.0), min(rest, of_seeds), seeds - 1, df)


def variance_of_gap(values: Array, first: Variance, second: Variance) -> Variance:
    """The variance of one mean minus another, over the same seeds but different groups.

    The seeds affect both means, so their part of the variance is estimated from the differences by
    seed. The two samples share no group, so the groups' parts add up; the degrees of freedom are
    those of a sum of two variances (Satterthwaite, Biometrics Bulletin 2, 1946; Welch, Biometrika
    34, 1947).

    Args:
        values: The differences by seed, ``[S]``.
        first: The variance of the first mean over these seeds.
        second: The variance of the second mean over these seeds.
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
    """Estimate a figure of any kind, with a symmetric confidence interval.

    Args:
        values: The figure by seed, ``[S]``.
        variance: The variance of the mean over seeds.
        margin: The equivalence margin: differences from -margin to +margin count as the same.
        level: The confidence level.
    """
    value, se = float(values.mean()), variance.whole**0.5
    over = variance.over
    if se == 0:
        # The difference is the same in every seed and group; 0 for a model and its copy.
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
    """Estimate an accuracy, with Wilson's score interval.

    The sample size of the interval is the number of independent documents that would have the same
    variance.

    Args:
        values: The accuracy by seed, ``[S]``.
        contributions: The groups' contributions, ``[S, G]``.
        squares: For each group, the sum of the squared contributions of its documents to the mean
            over seeds, ``[G]``.
        weights: The groups' weights.
        level: The confidence level.
    """
    value = float(values.mean())
    plain = value * (1 - value)
    variance, documents = _score_scale(plain, values, contributions, squares, weights)
    low, high = wilson_bounds(value, documents, variance.critical(level))
    nan = float("nan")
    return Estimate(value, variance.whole**0.5, low, high, nan, nan, variance.over, variance)


def accuracy_difference(
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
    """Estimate a difference of accuracies, with Tango's score interval.

    The sample size of the interval is the number of independent documents that would have the same
    variance.

    Args:
        losses: The weighted fraction of documents that only the baseline classifies correctly,
            averaged over seeds.
        wins: The weighted fraction of documents that only the other arm classifies correctly,
            averaged over seeds.
        values: The difference by seed, ``[S]``.
        contributions: As in `share`, of the differences.
        squares: As in `share`, of the differences.
        weights: The groups' weights.
        margin: The equivalence margin: differences from -margin to +margin count as the same.
        level: The confidence level.
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
    """A variance that is never 0, and the number of independent documents that would have it.

    The variance allows for one event that was not observed: one more document that only one of the
    two models classifies correctly. The event's squared contribution is the average over such
    documents after the mean over seeds.

    Args:
        plain: The variance of one document of one seed.
        values: As in `share`.
        contributions: As in `share`.
        squares: As in `share`.
        weights: As in `share`.
    """
    documents = weights.effective_documents
    event = (float(squares.sum()) + 1 / documents**2) / (plain * documents + 1)
    variance = variance_with_unseen_event(event, values, contributions, squares, weights)
    return variance, (plain + 1 / documents) / variance.whole


def variance_with_unseen_event(
    event: float, values: Array, contributions: Array, squares: Array, weights: GroupWeights
) -> Variance:
    """The variance of a mean, with a lower limit and one unobserved event added.

    If the models differ on few documents or none, the data do not show how much groups vary: the
    heaviest groups may contain no such document. The groups' part is therefore at least the
    documents' own variance times Kish's design effect, with the estimated correlation within
    groups. One unobserved event is then added: its squared contribution times the same design
    effect, because the rest of the document's group may change with it.

    Args:
        event: The squared contribution of a document in the event.
        values: As in `share`.
        contributions: As in `share`.
        squares: As in `share`.
        weights: As in `share`.
    """
    alike = weights.intragroup_correlation(contributions.mean(axis=0), squares, event)
    variance = variance_of(values, contributions, weights, alike)
    effect = 1 + alike * (weights.mean_group_size - 1)
    expected = float(squares.sum()) * effect - variance.rest
    return replace(variance, groups=max(variance.groups, expected) + event * effect)
