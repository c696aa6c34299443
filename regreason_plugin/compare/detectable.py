"""What could have been found: the smallest difference, and how much another would take.

The probability that the test finds a difference is taken over everything that another sample would
have anew: the mean is normal, and the seeds' variance is a chi-square, from which follow another
standard error and another critical value. (A noncentral t with today's critical value promises too
much: where three seeds happen to vary by nothing, the next three may vary.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from regreason_plugin.compare.crossed_variance import ENOUGH_SEEDS, Variance
from regreason_plugin.metrics.answers import Array

MOST_GROUPS = 10_000_000
MOST_SEEDS = 1_000
_SAMPLES = 64


def detectable(variance: Variance, *, level: float = 0.95, power: float = 0.80) -> float:
    """The smallest true difference that is found with this probability.

    Args:
        variance: Of the mean difference.
        level: One minus the test's error rate.
        power: The probability.

    Returns:
        A difference above 0; NaN where nothing was seen to vary, so that nothing is known of what
        could have been found.
    """
    from scipy.optimize import brentq

    if not variance.whole > 0:
        return float("nan")
    sd, halves = variance.whole**0.5, _half_widths(variance, level)
    enough = sd
    while _power_of(enough, sd, halves) < power:
        enough *= 2
    return float(brentq(lambda difference: _power_of(difference, sd, halves) - power, 0.0, enough))


def needed(
    variance: Variance,
    groups: int,
    difference: float,
    *,
    level: float = 0.95,
    power: float = 0.80,
) -> tuple[int | None, int | None]:
    """How many groups, or seeds, it takes to find a difference with this probability.

    Args:
        variance: Of the mean difference. New groups and seeds are taken to vary as these do.
        groups: How many it is from.
        difference: The true difference, either sign.
        level: One minus the test's error rate.
        power: The probability.

    Returns:
        The groups needed with these seeds, and the seeds needed with these groups, three or more;
        None where not even `MOST_GROUPS` or `MOST_SEEDS` are enough, or where nothing varies. With
        fewer than three seeds the groups needed for these trained models, and None.
    """
    if not variance.whole > 0:
        return None, None
    seeds = variance.df_seeds + 1

    def power_with(count_of_seeds: int, count_of_groups: int) -> float:
        more, longer = count_of_seeds / seeds, count_of_groups / groups
        of_seeds = (variance.seeds - variance.rest) + variance.rest / longer
        other = Variance(
            of_seeds / more,
            variance.groups / longer,
            variance.rest / longer / more,
            count_of_seeds - 1,
            max(variance.df_groups * longer, 1.0),
        )
        return _power_of(abs(difference), other.whole**0.5, _half_widths(other, level))

    enough_groups = _fewest(lambda count: power_with(seeds, count), power, groups, 2, MOST_GROUPS)
    if seeds < ENOUGH_SEEDS:
        return enough_groups, None
    return enough_groups, _fewest(
        lambda count: power_with(count, groups), power, seeds, ENOUGH_SEEDS, MOST_SEEDS
    )


def _half_widths(variance: Variance, level: float) -> Array:
    """Half the width of the intervals that other samples would have."""
    if not variance.seeds:
        return np.array([variance.critical(level) * variance.whole**0.5])
    samples = [
        replace(variance, seeds=variance.seeds * ratio) for ratio in _chi_square(variance.df_seeds)
    ]
    return np.array([one.critical(level) * one.whole**0.5 for one in samples])


@lru_cache(maxsize=64)
def _chi_square(df: int) -> tuple[float, ...]:
    """Values of a chi-square over its degrees of freedom, each as likely as the next."""
    from scipy.special import gammaincinv

    probabilities = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    return tuple(2 / df * gammaincinv(df / 2, probabilities))


def _power_of(difference: float, sd: float, halves: Array) -> float:
    """The probability that the interval around a normal mean excludes zero."""
    from scipy.special import ndtr

    return float((ndtr((difference - halves) / sd) + ndtr((-difference - halves) / sd)).mean())


def _fewest(
    power_with: Callable[[int], float], power: float, now: int, least: int, most: int
) -> int | None:
    """The fewest that are enough: below today's number where that is enough, else above it.

    Power need not grow with the number: where seeds vary, more groups leave fewer degrees of
    freedom. So today's number decides where to look, and the answer cannot contradict it.
    """
    if power_with(now) >= power:
        low, high = now, now
        while power_with(low) >= power:
            if low == least:
                return least
            low, high = max(low // 2, least), low
    else:
        low, high = now, now
        while power_with(high) < power:
            if high >= most:
                return None
            low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_with(middle) >= power else (middle, high)
    return high
