"""The temperature that calibrates a model's label probabilities, with its confidence interval.

A model gives each label k a score z_k, and softmax(z) is its distribution over the labels. Dividing
all scores by one temperature T > 0 keeps their order, so it changes no prediction. T is chosen to
minimise the mean negative log-likelihood of held-out labels (Guo, Pleiss, Sun and Weinberger, On
Calibration of Modern Neural Networks, ICML 2017, section 4.2). The negative log-likelihood is
convex in 1 / T, so there is at most one minimum. A T above 1 makes the model less confident.

The interval holds every T that a score test does not reject (Cox and Hinkley, Theoretical
Statistics, 1974, section 9.3). The test divides the likelihood's derivative at T by its standard
deviation for a model that is calibrated at T. A design effect widens this standard deviation if
documents of a group are wrong together, and Student's t takes the place of the normal distribution
if groups are few. With few documents, or few wrong labels, such an interval is more reliable than
one that is symmetric about the estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from regreason_plugin.comparison.group_variance import GroupWeights
from regreason_plugin.metrics.answers import Array, Integers
from regreason_plugin.metrics.count_formulas import log_probabilities

LEVEL = 0.95
# A search for a value of 1 / T ends after this many doublings or halvings.
_DOUBLINGS = 60
# A group with a smaller share of the information has none; the rest is rounding error.
_NO_SHARE = 1e-9


class NoTemperatureError(ValueError):
    """No temperature minimises the negative log-likelihood; the message says why."""


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature with its 95 % confidence interval.

    Attributes:
        value: The temperature T.
        low: Lower end of the interval; None if fewer than two groups tell anything about T.
        high: Upper end of the interval; None if ``low`` is, or if even an infinite temperature
            (equal probabilities for all labels) is not rejected.
    """

    value: float
    low: float | None
    high: float | None


def fit_temperature(scores: Array, labels: Integers, member: Integers) -> Temperature:
    """Fit the temperature of a model.

    Args:
        scores: The labels' scores, up to a constant in each row, ``[N, K]``.
        labels: The true labels, counted from 1, ``[N]``.
        member: Index of each document's group, from 0 and without gaps, ``[N]``.

    Raises:
        NoTemperatureError: The negative log-likelihood has no minimum at a T between 0 and
            infinity.
    """
    # Only the differences between the scores of a row matter.
    centred = scores - scores.mean(axis=1, keepdims=True)
    own = centred[np.arange(len(labels)), labels - 1]
    if not (centred.max(axis=1) > own).any():
        raise NoTemperatureError(
            "the true label has the highest score in every row, so the lower the temperature, the "
            "better it fits, and no temperature is the best"
        )
    # This is the likelihood's derivative at 1 / T = 0, where all labels are equally likely.
    if not own.mean() > 0:
        raise NoTemperatureError(
            "the true labels score no higher than the other labels do on average, so equal "
            "probabilities for all labels fit better than any temperature"
        )

    def derivative(inverse: float) -> float:
        return float((own - _mean_and_variance(centred, inverse)[0]).mean())

    start = 1 / float(np.abs(centred).mean())
    inverse = _sign_change(derivative, start, 2.0 if derivative(start) > 0 else 0.5)
    if inverse is None:
        raise NoTemperatureError("the scores differ too little to fit a temperature")
    return Temperature(1 / inverse, *_interval(inverse, centred, own, member))


def _interval(
    inverse: float, centred: Array, own: Array, member: Integers
) -> tuple[float | None, float | None]:
    """Both ends of the interval of T; None where it has no end, or is undefined."""
    from scipy.stats import t

    effect, freedom = _design_effect(inverse, centred, own, member)
    if not np.isfinite(freedom):
        return None, None
    critical = float(t.ppf((1 + LEVEL) / 2, freedom))

    def statistic(at: float) -> float:
        """The derivative of the likelihood at 1 / T, in its standard deviations at this T."""
        mean, variance = _mean_and_variance(centred, at)
        with np.errstate(divide="ignore"):
            return float((own - mean).sum() / np.sqrt(effect * variance.sum()))

    largest = _sign_change(lambda at: statistic(at) + critical, inverse, 2.0)
    smallest = _sign_change(lambda at: statistic(at) - critical, inverse, 0.5)
    low, high = (None if end is None else 1 / end for end in (largest, smallest))
    return low, high


def _design_effect(
    inverse: float, centred: Array, own: Array, member: Integers
) -> tuple[float, float]:
    """The variance of the likelihood's derivative relative to that of independent documents.

    A document's derivative is psi = z_label - mean, and its information is h = variance, both of
    its scores under its distribution at the fitted 1 / T. The estimate is, to first order, a mean
    of psi / h with weights h: so the groups' shares of the information take the place of their
    shares of the documents in `GroupWeights`. If the model is calibrated at T, h is the variance of
    psi.

    Returns:
        The design effect, 1 or more; and the degrees of freedom of the variance, for the estimated
        correlation of two documents of a group. NaN if fewer than two groups have information.
    """
    mean, information = _mean_and_variance(centred, inverse)
    psi, whole, groups = own - mean, float(information.sum()), int(member.max()) + 1
    of_groups = np.bincount(member, information, groups)
    totals = np.bincount(member, psi, groups).astype(np.float64)
    shares = of_groups / whole
    if np.count_nonzero(shares > _NO_SHARE) < 2:
        return np.nan, np.nan
    variance = float(GroupWeights(shares, shares / whole).variance(totals))
    # What a group adds to its variance if its documents have the correlation 1 instead of 0.
    alike = np.bincount(member, np.sqrt(information), groups) ** 2 - of_groups
    of_pairs = float((totals**2 - np.bincount(member, psi**2, groups)).sum())
    correlation = min(max(of_pairs / alike.sum(), 0.0), 1.0) if alike.sum() > 0 else 0.0
    expected = GroupWeights(shares, (of_groups + correlation * alike) / whole**2)
    return max(variance / whole, 1.0), expected.degrees_of_freedom(alike=0.0)


def _mean_and_variance(centred: Array, inverse: float) -> tuple[Array, Array]:
    """Mean and variance of each row's scores under its distribution at 1 / T, ``[N]`` each."""
    probabilities = np.exp(log_probabilities(centred * inverse))
    mean = (probabilities * centred).sum(axis=1)
    variance = (probabilities * (centred - mean[:, None]) ** 2).sum(axis=1)
    return mean, variance


def _sign_change(function: Callable[[float], float], start: float, factor: float) -> float | None:
    """Where a function changes its sign, searched from ``start`` in steps of ``factor``.

    Returns:
        None if the function keeps its sign.
    """
    from scipy.optimize import brentq

    near, sign = start, function(start) > 0
    for _ in range(_DOUBLINGS):
        far = near * factor
        if (function(far) > 0) != sign:
            return float(brentq(function, min(near, far), max(near, far), xtol=1e-12 * near))
        near = far
    return None
