"""What could have been found: the smallest difference, and how much another would take.

The probability that a test finds a difference is that of the whole procedure, under the variance
components that were seen: with them the mean is normal and the mean squares of `paired.crossed`
are independent chi-squares (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4),
from which follow the standard error and the degrees of freedom that another sample would have. A
noncentral t with today's degrees of freedom promises too much: where three seeds happen to vary by
nothing, the next three may vary, and the test then has few degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from regreason_plugin.compare.crossed_variance import (
    ENOUGH_SEEDS,
    Estimate,
    Table,
    crossed,
    variance_of_mean,
)
from regreason_plugin.metrics.answers import Array

MOST_GROUPS = 10_000_000
MOST_SEEDS = 1_000
# Samples that the probability is a mean over, two to this power; it errs by 0.003 or so.
_SAMPLES = 9


def detectable(estimate: Estimate, *, level: float = 0.95, power: float = 0.80) -> float:
    """The smallest true difference that is found with this probability.

    Args:
        estimate: How it varies counts, not its value.
        level: One minus the test's error rate.
        power: The probability.

    Returns:
        A difference above 0; NaN where the standard error is 0 or undefined: where nothing was
        seen to vary, nothing is known of what could have been found.
    """
    from scipy.optimize import brentq

    if not estimate.se > 0:
        return float("nan")
    if estimate.table is None:
        sd, halves = estimate.se, _normal_halves(estimate.se, level)
    else:
        seeds, groups = estimate.table[:2]
        sd, halves = _samples(_components(estimate.table), seeds, groups, level)
    enough = sd
    while _found(enough, sd, halves) < power:
        enough *= 2
    return float(brentq(lambda difference: _found(difference, sd, halves) - power, 0.0, enough))


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
        variance = float((influence.mean(axis=0) ** 2).sum() / (groups - 1))

        def found_alone(count: int) -> float:
            se = float(np.sqrt(variance / count))
            return _found(abs(difference), se, _normal_halves(se, level))

        if not variance > 0:
            return None, None
        return _fewest(found_alone, power, groups, 2, MOST_GROUPS), None

    table = crossed(values, influence, level=level).table
    if table is None:
        return None, None
    components = _components(table)

    def found(seeds: int, groups: int) -> float:
        return _found(abs(difference), *_samples(components, seeds, groups, level))

    return (
        _fewest(lambda count: found(seeds, count), power, groups, 2, MOST_GROUPS),
        _fewest(lambda count: found(count, groups), power, seeds, ENOUGH_SEEDS, MOST_SEEDS),
    )


def _components(table: Table) -> tuple[float, float, float]:
    """Variance components of seeds, groups and the rest, none negative.

    With as many seeds and groups they give the standard error of `paired.crossed`.
    """
    rest = min(table.rest, max(table.of_seed, table.of_group))
    of_seed, of_group = max(table.of_seed, rest), max(table.of_group, rest)
    return (of_seed - rest) / table.groups, (of_group - rest) / table.seeds, rest


def _samples(
    components: tuple[float, float, float], seeds: int, groups: int, level: float
) -> tuple[float, Array]:
    """The mean's standard deviation, and half the width of the intervals that samples have."""
    from scipy.special import stdtrit

    seed, group, rest = components
    expected = np.array([rest + groups * seed, rest + seeds * group, rest])
    variance, df = variance_of_mean(expected[:, None] * _chi_squares(seeds, groups), seeds, groups)
    sd = float(np.sqrt(seed / seeds + group / groups + rest / (seeds * groups)))
    return sd, stdtrit(df, (1 + level) / 2) * np.sqrt(variance)


@lru_cache(maxsize=64)
def _chi_squares(seeds: int, groups: int) -> Array:
    """Of seeds, groups and the rest over their degrees of freedom, evenly spread, [3, samples]."""
    from scipy.special import gammaincinv
    from scipy.stats import qmc

    points = qmc.Sobol(3, scramble=False).random_base2(_SAMPLES).T + 2.0 ** -(_SAMPLES + 1)
    halved = np.array([seeds - 1, groups - 1, (seeds - 1) * (groups - 1)])[:, None] / 2
    quantiles: Array = gammaincinv(halved, points) / halved
    return quantiles


def _normal_halves(se: float, level: float) -> Array:
    from scipy.special import ndtri

    return np.array([ndtri((1 + level) / 2) * se])


def _found(difference: float, sd: float, halves: Array) -> float:
    """The probability that the interval around a normal mean excludes zero."""
    from scipy.special import ndtr

    return float((ndtr((difference - halves) / sd) + ndtr((-difference - halves) / sd)).mean())


def _fewest(
    found: Callable[[int], float], power: float, now: int, least: int, most: int
) -> int | None:
    """The fewest that are enough: below today's number where that is enough, else above it.

    Power need not grow with the number: where seeds vary, more groups leave fewer degrees of
    freedom. So today's number decides where to look, and the answer cannot contradict it.
    """
    if found(now) >= power:
        low, high = now, now
        while found(low) >= power:
            if low == least:
                return least
            low, high = max(low // 2, least), low
    else:
        low, high = now, now
        while found(high) < power:
            if high >= most:
                return None
            low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high
