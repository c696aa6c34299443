"""The t distribution of a mean whose variance is the sum of two estimates.

Seeds and groups of documents each give a variance with degrees of freedom of its own, very few of
the seeds. Satterthwaite's single t takes a seed variance that is small by chance at its word: the
error shrinks and the degrees of freedom grow at once, so that at p = 0.0005 three seeds err twenty
times too often. Behrens's and Fisher's distribution does not: the mean's deviation is

    sqrt(a) t_seeds + sqrt(b) t_groups

with the two variances a and b and independent t variables (Fisher, Annals of Eugenics 6, 1935).
It errs on the safe side (Robinson, Annals of Statistics 4, 1976), and is Student's t where one of
the two variances is zero. Given either variance's chi-square over its degrees of freedom, q and r,
the deviation is normal with the variance a / q + b / r; what is left is a sum over both.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from regreason_plugin.metrics.answers import Array

# Between two points of a chi-square's logarithm, at most: by itself, and by its standard deviation
# where it varies little. The sums are then right to about six digits.
_STEP, _STEP_OF_DEVIATION = 0.5, 0.8
# Of Newton's method; it needs four or five.
_STEPS = 20


def tail(
    statistic: Array | float, share: Array | float, df_seeds: float, df_groups: float
) -> Array:
    """The probability of more than a statistic, one-sided.

    Args:
        statistic: The deviation over the square root of the whole variance, ``[...]``.
        share: The seeds' share of the variance, 0 to 1, ``[...]``.
        df_seeds: Degrees of freedom of their variance; not looked at where the share is 0.
        df_groups: Of the groups'.

    Returns:
        ``[...]``
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
    """What the statistic stays within, either way, with a probability of ``level``.

    Found by Newton's method from Cochran's approximation (Biometrics 20, 1964), the two t quantiles
    weighted by the shares.
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
    """Every pair of points of two chi-squares, and its probability."""
    seeds, weight_of_seeds = _chi_square(df_seeds)
    groups, weight_of_groups = _chi_square(df_groups)
    of_seeds, of_groups = np.meshgrid(seeds, groups, indexing="ij")
    weight = np.outer(weight_of_seeds, weight_of_groups)
    return of_seeds.ravel(), of_groups.ravel(), weight.ravel()


def _chi_square(df: float) -> tuple[Array, Array]:
    """Points of a chi-square over its degrees of freedom, and their probabilities.

    Evenly spaced in the logarithm, where the density is smooth and dies out on both sides, so
    that the sum converges as fast as any rule.
    """
    from scipy.special import gammaincinv

    low, high = (np.log(2 / df * gammaincinv(df / 2, p)) for p in (1e-13, 1 - 1e-12))
    step = min(_STEP, _STEP_OF_DEVIATION * (2 / df) ** 0.5)
    log = np.linspace(low, high, int((high - low) / step) + 2)
    ratio = np.exp(log)
    density = np.exp(df / 2 * (log - ratio + 1))
    return ratio, density / density.sum()
