"""What could have been found: the smallest difference, and how much another would take.

The probability that the test finds a difference is taken over everything that is not known of
another sample. It has a mean, which is normal, and variances of seeds and groups of its own, which
are chi-squares around the true ones and from which its critical value follows. And the true ones
are known from this sample alone: they are what it estimates over other chi-squares (Fisher's
fiducial distribution of a variance). So three seeds that happen to vary by little promise little,
and over many samples the difference that each of them names is found as often as is said.
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
# Values that stand for a chi-square: of seeds, whose few make it wide, and of groups.
_SEEDS, _GROUPS = 24, 6
# Shares of the seeds at which critical values are computed; in between they are interpolated.
_SHARES = np.linspace(0, 1, 17)


class Smallest(NamedTuple):
    """The smallest difference that is found with some probability, with a 95 % interval.

    Attributes:
        value: Itself.
        low: If the true variances are small for what was estimated.
        high: If they are large for it.
    """

    value: float
    low: float
    high: float


def detectable(variance: Variance, *, level: float = 0.95, power: float = 0.80) -> Smallest:
    """The smallest true difference that is found with this probability.

    Its interval is of the smallest difference for the true variances, whatever is known of them:
    each variance's interval is carried over by itself, and the two are put together as Zou and
    Donner do (Statistics in Medicine 27, 2008).

    Args:
        variance: Of the mean difference.
        level: One minus the test's error rate; also of the interval.
        power: The probability.

    Returns:
        A difference above 0; NaN where nothing was seen to vary, so that nothing is known of what
        could have been found.
    """
    from scipy.special import gammaincinv

    seeds, groups = np.array(variance.seeds), np.array(variance.groups)
    if not variance.whole > 0:
        return Smallest(np.nan, np.nan, np.nan)

    def smallest(of_seeds: Array, of_groups: Array) -> float:
        dfs = variance.df_seeds, variance.df_groups
        return _least(lambda d: _found(d, of_seeds, of_groups, *dfs, level), variance, power)

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
    seeds, (of_seeds, of_groups) = variance.df_seeds + 1, _true(variance)
    alone = np.maximum(of_seeds - variance.rest, 0)

    def power_with(count_of_seeds: int, count_of_groups: int) -> float:
        more, longer = count_of_seeds / seeds, count_of_groups / groups
        return _found(
            abs(difference),
            (alone + np.minimum(variance.rest, of_seeds) / longer) / more,
            of_groups / longer,
            count_of_seeds - 1,
            max(variance.df_groups * longer, 1.0),
            level,
        )

    enough_groups = _fewest(lambda count: power_with(seeds, count), power, groups, 2, MOST_GROUPS)
    if seeds < ENOUGH_SEEDS:
        return enough_groups, None
    return enough_groups, _fewest(
        lambda count: power_with(count, groups), power, seeds, ENOUGH_SEEDS, MOST_SEEDS
    )


def _true(variance: Variance) -> tuple[Array, Array]:
    """What the true variances of seeds and groups may be, each pair as likely as the next."""
    of_seeds = variance.seeds / _chi_square(variance.df_seeds, _SEEDS)
    of_groups = variance.groups / _chi_square(variance.df_groups, _GROUPS)
    both: tuple[Array, ...] = np.broadcast_arrays(of_seeds[:, None], of_groups)
    return both[0], both[1]


def _found(
    difference: float,
    of_seeds: Array,
    of_groups: Array,
    df_seeds: float,
    df_groups: float,
    level: float,
) -> float:
    """How likely another sample's interval is above zero, over all true variances ``[...]``."""
    from scipy.special import ndtr

    seeds = of_seeds[..., None, None] * _chi_square(df_seeds, _SEEDS)[:, None]
    groups = of_groups[..., None, None] * _chi_square(df_groups, _GROUPS)
    seen = seeds + groups
    reach = np.interp(seeds / seen, _SHARES, _critical(level, df_seeds, df_groups))
    true = np.sqrt(of_seeds + of_groups)[..., None, None]
    return float(ndtr((difference - reach * np.sqrt(seen)) / true).mean())


@lru_cache(maxsize=256)
def _critical(level: float, df_seeds: float, df_groups: float) -> Array:
    """Critical values at `_SHARES`."""
    # (Without seeds their share is always 0.)
    shares = _SHARES if df_seeds else np.zeros_like(_SHARES)
    return np.array([critical(level, float(part), df_seeds, df_groups) for part in shares])


@lru_cache(maxsize=256)
def _chi_square(df: float, count: int) -> Array:
    """Values of a chi-square over its degrees of freedom, each as likely as the next."""
    from scipy.special import gammaincinv

    if not df:
        return np.ones(1)
    values: Array = gammaincinv(df / 2, (np.arange(count) + 0.5) / count) * 2 / df
    return values


def _least(found: Callable[[float], float], variance: Variance, power: float) -> float:
    """The difference that is found with this probability."""
    from scipy.optimize import brentq

    enough = variance.whole**0.5
    while found(enough) < power:
        enough *= 2
    return float(brentq(lambda difference: found(difference) - power, 0.0, enough, rtol=1e-6))


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
