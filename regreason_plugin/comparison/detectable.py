"""The smallest difference that a test can detect, and the groups or seeds that a given one needs.

Power is the probability that the test finds a difference. It is averaged over everything unknown
about another sample. The mean of that sample is normal. Its estimated variances of seeds and groups
are chi-squares around the true variances, and its critical value follows from them. The true
variances are known only through the present sample: each is its estimate divided by another
chi-square over its degrees of freedom (Fisher's fiducial distribution of a variance). Three seeds
that happen to vary little therefore do not promise high power. Averaged over many samples, the
difference that each sample names is found as often as stated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from regreason_plugin.comparison.behrens_fisher import critical
from regreason_plugin.comparison.crossed_variance import ENOUGH_SEEDS, Variance
from regreason_plugin.metrics.answers import Array

MOST_GROUPS = 10_000_000
MOST_SEEDS = 1_000
# How many values represent a chi-square: for seeds, whose few degrees of freedom make it wide, and
# for groups.
_SEEDS, _GROUPS = 24, 6
# The seeds' fractions of the variance at which critical values are computed; between them, critical
# values are interpolated.
_SHARES = np.linspace(0, 1, 17)


class Smallest(NamedTuple):
    """The smallest difference that is found with a given power, with its 95 % interval.

    Attributes:
        value: The smallest difference.
        low: Lower end of the interval, for true variances below their estimates.
        high: Upper end of the interval, for true variances above their estimates.
    """

    value: float
    low: float
    high: float


def detectable(variance: Variance, *, level: float = 0.95, power: float = 0.80) -> Smallest:
    """The smallest true difference that the test finds with this power.

    The interval covers the smallest difference for the true variances. The confidence limits of
    each variance are propagated separately, and then combined as in Zou and Donner (Statistics in
    Medicine 27, 2008).

    Args:
        variance: The variance of the mean difference.
        level: One minus the error rate of the test; also the confidence level of the interval.
        power: The probability that the test finds the difference.

    Returns:
        A difference above 0; NaN if no variation was observed, because the detectable difference is
        then unknown.
    """
    from scipy.special import gammaincinv

    seeds, groups = np.array(variance.seeds), np.array(variance.groups)
    if not variance.whole > 0:
        return Smallest(np.nan, np.nan, np.nan)

    def smallest(of_seeds: Array, of_groups: Array) -> float:
        dfs = variance.df_seeds, variance.df_groups
        return _least(lambda d: _power(d, of_seeds, of_groups, *dfs, level), variance, power)

    centre, ends = smallest(seeds, groups), []
    for probability in ((1 + level) / 2, (1 - level) / 2):
        moved = []
        for part, df in ((seeds, variance.df_seeds), (groups, variance.df_groups)):
            other = part / (gammaincinv(df / 2, probability) * 2 / df) if df else part
            moved.append(smallest(other, groups) if part is seeds else smallest(seeds, other))
        by_seeds, by_groups = moved
        ends.append(float(np.hypot(by_seeds - centre, by_groups - centre)))
    return Smallest(smallest(*_true(variance)), centre - ends[0], centre + ends[1])


def needed(
    variance: Variance,
    groups: int,
    difference: float,
    *,
    level: float = 0.95,
    power: float = 0.80,
) -> tuple[int | None, int | None]:
    """The number of groups, or of seeds, that finding a difference with this power takes.

    Args:
        variance: The variance of the mean difference. New groups and seeds are assumed to vary as
            the present ones do.
        groups: The number of groups behind ``variance``.
        difference: The true difference; its sign does not matter.
        level: One minus the error rate of the test.
        power: The probability that the test finds the difference.

    Returns:
        The number of groups needed with the present seeds, and the number of seeds (three or more)
        needed with the present groups. Each is None if even `MOST_GROUPS` or `MOST_SEEDS` are too
        few, and both are None if nothing varies. With fewer than three seeds, the number of groups
        is for these trained models, and the number of seeds is None.
    """
    if not variance.whole > 0:
        return None, None
    seeds = variance.df_seeds + 1
    enough_groups = needed_groups(variance, groups, difference, seeds, level=level, power=power)
    if seeds < ENOUGH_SEEDS:
        return enough_groups, None
    power_with = _power_with(variance, groups, difference, level)
    return enough_groups, _fewest(
        lambda count: power_with(count, groups), power, seeds, ENOUGH_SEEDS, MOST_SEEDS
    )


def needed_groups(
    variance: Variance,
    groups: int,
    difference: float,
    seeds: int,
    *,
    level: float = 0.95,
    power: float = 0.80,
) -> int | None:
    """The number of groups that finding a difference takes with so many seeds.

    Args:
        variance: As in `needed`.
        groups: As in `needed`.
        difference: As in `needed`.
        seeds: The number of seeds; another one than at present needs a variance over seeds.
        level: As in `needed`.
        power: As in `needed`.

    Returns:
        None if even `MOST_GROUPS` are too few, or nothing varies.
    """
    if not variance.whole > 0:
        return None
    power_with = _power_with(variance, groups, difference, level)
    return _fewest(lambda count: power_with(seeds, count), power, groups, 2, MOST_GROUPS)


def _power_with(
    variance: Variance, groups: int, difference: float, level: float
) -> Callable[[int, int], float]:
    """The power by numbers of seeds and of groups."""
    seeds, (of_seeds, of_groups) = variance.df_seeds + 1, _true(variance)
    alone = np.maximum(of_seeds - variance.rest, 0)

    def power_with(count_of_seeds: int, count_of_groups: int) -> float:
        more, longer = count_of_seeds / seeds, count_of_groups / groups
        return _power(
            abs(difference),
            (alone + np.minimum(variance.rest, of_seeds) / longer) / more,
            of_groups / longer,
            count_of_seeds - 1,
            max(variance.df_groups * longer, 1.0),
            level,
        )

    return power_with


def _true(variance: Variance) -> tuple[Array, Array]:
    """Equally probable pairs of true variances of seeds and groups."""
    of_seeds = variance.seeds / _chi_square(variance.df_seeds, _SEEDS)
    of_groups = variance.groups / _chi_square(variance.df_groups, _GROUPS)
    both: tuple[Array, ...] = np.broadcast_arrays(of_seeds[:, None], of_groups)
    return both[0], both[1]


def _power(
    difference: float,
    of_seeds: Array,
    of_groups: Array,
    df_seeds: float,
    df_groups: float,
    level: float,
) -> float:
    """The power of a test on another sample, averaged over the true variances ``[...]``."""
    from scipy.special import ndtr

    seeds = of_seeds[..., None, None] * _chi_square(df_seeds, _SEEDS)[:, None]
    groups = of_groups[..., None, None] * _chi_square(df_groups, _GROUPS)
    whole = seeds + groups
    reach = np.interp(seeds / whole, _SHARES, _critical(level, df_seeds, df_groups))
    true = np.sqrt(of_seeds + of_groups)[..., None, None]
    return float(ndtr((difference - reach * np.sqrt(whole)) / true).mean())


@lru_cache(maxsize=256)
def _critical(level: float, df_seeds: float, df_groups: float) -> Array:
    """Critical values at `_SHARES`."""
    # Without a seed variance, the seeds' fraction is always 0.
    shares = _SHARES if df_seeds else np.zeros_like(_SHARES)
    return np.array([critical(level, float(part), df_seeds, df_groups) for part in shares])


@lru_cache(maxsize=256)
def _chi_square(df: float, count: int) -> Array:
    """Equally probable values of a chi-square over its degrees of freedom, ``[count]``."""
    from scipy.special import gammaincinv

    if not df:
        return np.ones(1)
    values: Array = gammaincinv(df / 2, (np.arange(count) + 0.5) / count) * 2 / df
    return values


def _least(power_at: Callable[[float], float], variance: Variance, power: float) -> float:
    """The difference at which ``power_at`` reaches this power."""
    from scipy.optimize import brentq

    enough = variance.whole**0.5
    while power_at(enough) < power:
        enough *= 2
    return float(brentq(lambda difference: power_at(difference) - power, 0.0, enough, rtol=1e-6))


def _fewest(
    power_with: Callable[[int], float], power: float, now: int, least: int, most: int
) -> int | None:
    """The smallest number with enough power, searched downwards or upwards from the present number.

    If the present number ``now`` has enough power, the search goes down from it, otherwise up.
    Power need not grow with the number: if seeds vary, more groups leave fewer degrees of freedom.
    Starting at ``now`` ensures that the answer never contradicts the power of the present sample.
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
