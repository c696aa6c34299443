"""What could have been found: the smallest difference, and how much a smaller one would take.

A difference d with standard error se is found by a two-sided t test with probability
P(|T| > t), T being noncentral t with noncentrality d / se (Cohen, Statistical Power Analysis, 1988,
appendix on computation). The standard error is the one that was seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from regreason_plugin.report.paired import (
    ENOUGH_SEEDS,
    Array,
    Estimate,
    mean_squares,
    variance_of_mean,
)

MOST_GROUPS = 10_000_000
MOST_SEEDS = 1_000


def detectable(estimate: Estimate, *, level: float = 0.95, power: float = 0.80) -> float:
    """The smallest true difference that is found with this probability.

    Args:
        estimate: Its standard error and degrees of freedom count, not its value.
        level: One minus the test's error rate.
        power: The probability.

    Returns:
        A difference above 0; NaN where the standard error is 0 or undefined: where nothing was
        seen to vary, nothing is known of what could have been found.
    """
    from scipy.optimize import brentq

    if not estimate.se > 0:
        return float("nan")
    df = np.array(np.inf if estimate.df is None else estimate.df)

    def missing(noncentrality: float) -> float:
        return float(_found(np.array(noncentrality), df, level)) - power

    enough = 1.0
    while missing(enough) < 0:
        enough *= 2
    return float(brentq(missing, 0.0, enough)) * estimate.se


def needed(
    values: Array,
    influence: Array,
    difference: float,
    *,
    level: float = 0.95,
    power: float = 0.80,
) -> tuple[int | None, int | None]:
    """How many groups, or seeds, it takes to find a difference with this probability.

    Args:
        values: As for `paired.crossed`, ``[seeds]``.
        influence: As for `paired.crossed`, ``[seeds, groups]``. New groups and seeds are taken to
            vary as these do.
        difference: The true difference, either sign.
        level: One minus the test's error rate.
        power: The probability.

    Returns:
        The groups needed with these seeds, and the seeds needed with these groups, three or more;
        None where not even `MOST_GROUPS` or `MOST_SEEDS` are enough, or where nothing varies. With
        fewer than three seeds the groups needed for these trained models, and None.
    """
    seeds, groups = influence.shape
    if seeds < ENOUGH_SEEDS:
        square = float((influence.mean(axis=0) ** 2).sum() / (groups - 1))

        def by_groups_alone(counts: Array) -> Array:
            se = np.sqrt(square / counts)
            return _found(abs(difference) / se, np.full_like(counts, np.inf), level)

        if not square > 0:
            return None, None
        return _fewest(by_groups_alone, power, groups, 2, MOST_GROUPS), None

    of_seed, of_group, rest = mean_squares(values[None], influence[None])[:, 0, 0]
    rest = min(rest, max(of_seed, of_group))
    seed_component = (max(of_seed, rest) - rest) / groups
    group_component = (max(of_group, rest) - rest) / seeds
    if not max(seed_component, group_component, rest) > 0:
        return None, None

    def by_both(seeds: Array, groups: Array) -> Array:
        expected = np.stack(
            [
                rest + groups * seed_component,
                rest + seeds * group_component,
                np.full_like(seeds * groups, rest),
            ]
        )
        variance, df = variance_of_mean(expected, seeds, groups)
        return _found(abs(difference) / np.sqrt(variance), df, level)

    return (
        _fewest(lambda n: by_both(np.full_like(n, seeds), n), power, groups, 2, MOST_GROUPS),
        _fewest(
            lambda n: by_both(n, np.full_like(n, groups)), power, seeds, ENOUGH_SEEDS, MOST_SEEDS
        ),
    )


def _found(noncentrality: Array, df: Array, level: float) -> Array:
    """The probability that a two-sided t test rejects."""
    from scipy.stats import nct, norm, t

    critical = t.ppf((1 + level) / 2, df)
    # With many degrees of freedom the two are the same.
    finite = np.minimum(df, 1e8)
    # Far from zero scipy has no figure for the wrong side, where it is next to none.
    wrong_side = np.nan_to_num(nct.cdf(-critical, finite, noncentrality))
    by_t = nct.sf(critical, finite, noncentrality) + wrong_side
    by_normal = norm.sf(critical - noncentrality) + norm.cdf(-critical - noncentrality)
    found: Array = np.where(np.isinf(df), by_normal, by_t)
    return found


def _fewest(
    found: Callable[[Array], Array], power: float, now: int, least: int, most: int
) -> int | None:
    """The fewest that are enough: below today's number where that is enough, else above it.

    Power need not grow with the number: where seeds vary, more groups leave fewer degrees of
    freedom. So today's number decides where to look, and the answer cannot contradict it.
    """
    grid = np.unique(np.append(np.geomspace(least, most, 400).round(), float(now)))
    enough = found(grid) >= power
    at = int(np.searchsorted(grid, now))
    if enough[at]:
        failing = np.flatnonzero(~enough[:at])
        if not failing.size:
            return least
        first = failing[-1] + 1
    else:
        later = np.flatnonzero(enough[at:])
        if not later.size:
            return None
        first = at + later[0]
    low, high = int(grid[first - 1]), int(grid[first])
    while high - low > 1:
        middle = (low + high) // 2
        if found(np.array([float(middle)]))[0] >= power:
            high = middle
        else:
            low = middle
    return high
