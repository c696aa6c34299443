"""Alpha over several planned looks at data that grow: group-sequential boundaries.

Whoever tests again and again at alpha errs more often than alpha: four looks at 0.05 pass a model
that is at the limit in 12 % of cases. With K looks planned beforehand, after equal shares of the
effective groups each, little of alpha is spent early and most of it at the end. The spending
function is that of Lan and DeMets (Biometrika 70, 1983, 659-663) which is like O'Brien's and
Fleming's boundaries,

    alpha(t) = 2 - 2 Phi(z / sqrt(t)),    z the upper alpha / 2 point, t = k / K

and the boundary of look k is crossed there first with a probability of alpha(t_k) - alpha(t_k-1)
(Armitage, McPherson and Rowe, Journal of the Royal Statistical Society A 132, 1969, 235-244).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regreason_plugin.metrics.answers import Array

MOST_LOOKS = 20
_NODES = 201
# Standard deviations below zero beyond which the sum is not followed.
_FAR = 9.0


@dataclass(frozen=True)
class Look:
    """One of several planned looks.

    Attributes:
        number: Which it is, from 1.
        planned: How many there are.
        alpha: Of a bound at this look alone.
        spent: Of alpha, by this look and those before it.
    """

    number: int
    planned: int
    alpha: float
    spent: float


def planned_look(number: int, planned: int, alpha: float) -> Look:
    """What a look may spend.

    Args:
        number: Which look it is, from 1 to ``planned``.
        planned: How many there are; with one, the whole of alpha is its own.
        alpha: Of all looks together, one-sided.
    """
    from scipy.stats import norm

    boundary = boundaries(alpha, planned)[number - 1]
    return Look(number, planned, float(norm.sf(boundary)), float(_spent(alpha, planned)[number]))


def boundaries(alpha: float, planned: int) -> Array:
    """The one-sided boundary of each look for a standard normal statistic, ``[planned]``.

    The sum of the increments so far is followed by its density below the boundaries, on nodes of
    Gauss and Legendre.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    spends = np.diff(_spent(alpha, planned))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    # Before the first look the sum is 0.
    sums, density = np.zeros(1), np.ones(1)
    found = np.empty(planned)
    for look, spend in enumerate(spends, start=1):

        def excess(bound: float, sums: Array = sums, density: Array = density) -> float:
            return float(norm.sf(bound - sums) @ density - spend)  # noqa: B023

        bound = brentq(excess, 0.0, 40.0 * look**0.5, xtol=1e-10)
        found[look - 1] = bound / look**0.5
        least = -_FAR * look**0.5
        now = least + (nodes + 1) / 2 * (bound - least)
        # What is carried on is density times weight.
        reached = norm.pdf(now[:, None] - sums) @ density
        sums, density = now, reached * weights * (bound - least) / 2
    return found


def _spent(alpha: float, planned: int) -> Array:
    """Of alpha after 0, 1, ... looks, ``[planned + 1]``."""
    from scipy.stats import norm

    shares = np.arange(1, planned + 1) / planned
    return np.concatenate([[0.0], 2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(shares))])
