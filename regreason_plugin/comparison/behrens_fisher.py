"""The Behrens-Fisher distribution: a mean whose variance is the sum of two estimated variances.

Seeds and groups of documents each contribute an estimated variance with its own degrees of freedom;
those of the seeds are very few. Satterthwaite's approximation by a single t distribution fails
here. If the seed variance is small by chance, the standard error shrinks and the degrees of freedom
grow at the same time: with three seeds, a test at p = 0.0005 rejects twenty times too often. The
Behrens-Fisher distribution avoids this. In it, the mean's deviation is

    sqrt(a) t_seeds + sqrt(b) t_groups

with the two variances a and b and independent t variables (Fisher, Annals of Eugenics 6, 1935). The
test is conservative (Robinson, Annals of Statistics 4, 1976), and it is Student's t test if one of
the two variances is zero. Given the two chi-squares over their degrees of freedom, q and r, the
deviation is normal with the variance a / q + b / r; the remaining integral is a sum over q and r.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from regreason_plugin.metrics.answers import Array

# The largest step between two points of a chi-square's logarithm: absolute, and in standard
# deviations where the logarithm varies little. The sums are then accurate to about six digits.
_STEP, _STEP_OF_DEVIATION = 0.5, 0.8
# The most steps of Newton's method, which needs four or five.
_STEPS = 20


def tail(
    statistic: Array | float, share: Array | float, df_seeds: float, df_groups: float
) -> Array:
    """The one-sided probability of exceeding a statistic.

    Args:
        statistic: The deviation over the square root of the whole variance, ``[...]``.
        share: The seeds' fraction of the variance, 0 to 1, ``[...]``.
        df_seeds: Degrees of freedom of the seeds' variance; unused where ``share`` is 0.
        df_groups: Degrees of freedom of the groups' variance.

    Returns:
        The probability, ``[...]``.
    """
    from scipy.special import ndtr, stdtr

    t, part = np.broadcast_arrays(np.asarray(statistic, float), np.asarray(share, float))
    if not part.any():
        alone: Array = stdtr(df_groups, -t)
        return alone
    of_seeds, of_groups, weight = _chi_squares(df_seeds, df_groups)
    scale = np.sqrt(part[..., None] / of_seeds + (1 - part[..., None]) / of_groups)
    probability: Array = ndtr(-t[..., None] / scale) @ weight
    return probability


def critical(level: float, share: float, df_seeds: float, df_groups: float) -> float:
    """The two-sided critical value: the statistic stays within it with probability ``level``.

    Newton's method starts from Cochran's approximation (Biometrics 20, 1964), the mean of the two t
    quantiles weighted by the variance fractions.
    """
    from scipy.special import ndtr, stdtrit

    of_groups = float(stdtrit(df_groups, (1 + level) / 2))
    if share <= 0:
        return of_groups
    statistic = share * float(stdtrit(df_seeds, (1 + level) / 2)) + (1 - share) * of_groups
    of_seed, of_group, weight = _chi_squares(df_seeds, df_groups)
    scale = np.sqrt(share / of_seed + (1 - share) / of_group)
    for _ in range(_STEPS):
        t = statistic / scale
        excess = float(ndtr(-t) @ weight) - (1 - level) / 2
        density = float((np.exp(-(t**2) / 2) / scale) @ weight) / (2 * np.pi) ** 0.5
        statistic += excess / density
        if abs(excess) < 1e-12:
            break
    return statistic


@lru_cache(maxsize=256)
def _chi_squares(df_seeds: float, df_groups: float) -> tuple[Array, Array, Array]:
    """All pairs of points of the two chi-squares, and the probability of each pair."""
    seeds, weight_of_seeds = _chi_square(df_seeds)
    groups, weight_of_groups = _chi_square(df_groups)
    of_seeds, of_groups = np.meshgrid(seeds, groups, indexing="ij")
    weight = weight_of_seeds[:, None] * weight_of_groups
    return of_seeds.ravel(), of_groups.ravel(), weight.ravel()


def _chi_square(df: float) -> tuple[Array, Array]:
    """Points of a chi-square over its degrees of freedom, and their probabilities.

    The points are evenly spaced in the logarithm. There the density is smooth and decays at both
    ends, so the trapezoidal sum converges very fast.
    """
    from scipy.special import gammaincinv

    low, high = (np.log(2 / df * gammaincinv(df / 2, p)) for p in (1e-13, 1 - 1e-12))
    step = min(_STEP, _STEP_OF_DEVIATION * (2 / df) ** 0.5)
    log = np.linspace(low, high, int((high - low) / step) + 2)
    ratio = np.exp(log)
    density = np.exp(df / 2 * (log - ratio + 1))
    return ratio, density / density.sum()
