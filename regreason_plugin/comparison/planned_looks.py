"""Alpha spending for several planned looks at growing data: group-sequential boundaries.

Repeated tests at alpha have an error rate above alpha: four looks at 0.05 pass a model that is
exactly at the limit in 12 % of cases. With K planned looks, after equal shares of the effective
groups each, the early looks spend little of alpha and the last ones most of it. The spending
function is the one of Lan and DeMets (Biometrika 70, 1983, 659-663) that resembles the boundaries
of O'Brien and Fleming,

    alpha(t) = 2 - 2 Phi(z / sqrt(t)),    z the upper alpha / 2 quantile, t = k / K

The boundary of look k is chosen so that the statistic crosses it at look k for the first time with
probability alpha(t_k) - alpha(t_k-1) (Armitage, McPherson and Rowe, Journal of the Royal
Statistical Society A 132, 1969, 235-244).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regreason_plugin.metrics.answers import Array

MOST_LOOKS = 20
_NODES = 201
# The density of the sum is ignored more than this many standard deviations below zero.
_FAR = 9.0


@dataclass(frozen=True)
class Look:
    """One of several planned looks.

    Attributes:
        number: Number of this look, from 1.
        planned: Number of planned looks.
        alpha: The alpha of a confidence bound at this look.
        spent: The part of the total alpha that is spent by this look and all earlier ones.
    """

    number: int
    planned: int
    alpha: float
    spent: float


def planned_look(number: int, planned: int, alpha: float) -> Look:
    """Compute the alpha of one look.

    Args:
        number: Number of the look, from 1 to ``planned``.
        planned: Number of planned looks; a single look gets the whole alpha.
        alpha: One-sided error rate of all looks together.
    """
    from scipy.stats import norm

    boundary = boundaries(alpha, planned)[number - 1]
    return Look(number, planned, float(norm.sf(boundary)), float(_spent(alpha, planned)[number]))


def boundaries(alpha: float, planned: int) -> Array:
    """The one-sided boundary of each look for a standard normal statistic, ``[planned]``.

    The computation follows the density of the cumulative sum below the boundaries, on
    Gauss-Legendre nodes.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    spends = np.diff(_spent(alpha, planned))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    # Before the first look, the sum is 0.
    sums, density = np.zeros(1), np.ones(1)
    standardised = np.empty(planned)
    for look, spend in enumerate(spends, start=1):

        def excess(bound: float, sums: Array = sums, density: Array = density) -> float:
            return float(norm.sf(bound - sums) @ density - spend)  # noqa: B023

        bound = brentq(excess, 0.0, 40.0 * look**0.5, xtol=1e-10)
        standardised[look - 1] = bound / look**0.5
        least = -_FAR * look**0.5
        now = least + (nodes + 1) / 2 * (bound - least)
        # `density` holds the density times the quadrature weight.
        reached = norm.pdf(now[:, None] - sums) @ density
        sums, density = now, reached * weights * (bound - least) / 2
    return standardised


def _spent(alpha: float, planned: int) -> Array:
    """The alpha that is spent after 0, 1, ... looks, ``[planned + 1]``."""
    from scipy.stats import norm

    shares = np.arange(1, planned + 1) / planned
    return np.concatenate([[0.0], 2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(shares))])
