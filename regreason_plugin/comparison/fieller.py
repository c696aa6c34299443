"""The fraction of one difference that another one keeps, with a Fieller confidence set.

The numerator and the denominator are both uncertain. The confidence set contains every ratio rho
for which a test of numerator - rho * denominator = 0 does not reject (Fieller, Journal of the Royal
Statistical Society B 16, 1954). If the denominator itself may be zero, the set is unbounded:
everything outside an interval, or every number. The test is the one of `crossed_variance`. Its
variances are quadratic forms in (1, -rho), but its critical value and the truncation at zero depend
on rho too. So the ends of the set have no closed form and are searched numerically, over the angle
of (1, -rho), in which infinity is a point like any other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.comparison.behrens_fisher import tail
from regreason_plugin.comparison.comparison import Gap
from regreason_plugin.comparison.crossed_variance import ENOUGH_SEEDS
from regreason_plugin.comparison.group_variance import GroupWeights
from regreason_plugin.metrics.answers import Array

_ANGLES = 1024
# Halves the step of the grid to below the precision of a double.
_HALVINGS = 60


def fieller(
    values: Array, contributions: Array, weights: GroupWeights, *, level: float = 0.95
) -> Gap:
    """The ratio of two differences with its confidence set.

    Args:
        values: Numerator and denominator by seed, ``[2, seeds]``.
        contributions: The groups' contributions to both, ``[2, seeds, groups]``. With fewer than
            three seeds, the set accounts for groups only and is about these trained models only.
        weights: The groups' weights.
        level: The confidence level of the set.

    Returns:
        The ratio of the means (None if the denominator's mean is exactly 0) and the set. If the set
        excludes several intervals, only the excluded interval that contains infinity is reported,
        or else the largest one.

    Raises:
        ValueError: There is only one group.
    """
    if contributions.shape[2] < 2:
        raise ValueError("an interval needs two groups of documents or more")
    numerator, denominator = (float(mean) for mean in values.mean(axis=1))
    value = numerator / denominator if denominator else None
    if value is not None and np.array_equal(*values) and np.array_equal(*contributions):
        # The two arms have the same scores, so the ratio is exactly 1.
        return Gap(value=1.0, kind="between", low=1.0, high=1.0)
    test = _Test(values, contributions, weights, level)
    # The grid covers rho from minus infinity to infinity. It includes the estimate, and the angle
    # at which the test rejects most strongly: otherwise a set that excludes only a small interval
    # could be reported as everything.
    estimate = _angle(denominator, numerator)
    strictest = _angle(*test.strictest())
    angles = np.unique(
        np.concatenate([np.linspace(-np.pi / 2, np.pi / 2, _ANGLES + 1), [estimate, strictest]])
    )
    # The last angle is the same line as the first, so it is dropped.
    inside = (test.keeps(angles) | (angles == estimate))[:-1]
    if inside.all():
        return Gap(value=value, kind="everything", low=None, high=None)
    changes = np.flatnonzero(inside != np.roll(inside, -1))
    ends = _ends(test, angles[changes], angles[changes + 1], inside[changes])
    if not inside[0]:
        low, high = np.tan(ends[[0, -1]])
        return Gap(value=value, kind="between", low=float(low), high=float(high))
    # Each excluded interval runs from where the set stops to where it resumes.
    excluded = ends.reshape(-1, 2)
    low, high = np.tan(excluded[np.argmax(excluded[:, 1] - excluded[:, 0])])
    return Gap(value=value, kind="outside", low=float(low), high=float(high))


def _angle(x: float, y: float) -> float:
    """The angle of the line through 0 and (x, y), from -pi/2 to pi/2; its tangent is y / x."""
    return float(np.arctan(np.divide(y, x))) if x else float(-np.pi / 2 if y else 0.0)


class _Test:
    """A test of numerator - rho * denominator = 0, for any rho = tan(angle)."""

    def __init__(
        self, values: Array, contributions: Array, weights: GroupWeights, level: float
    ) -> None:
        seeds = values.shape[1]
        self.level = level
        self.mean = values.mean(axis=1)
        self.df_seeds, self.df_groups = seeds - 1, weights.degrees_of_freedom()
        scaled = contributions / np.sqrt(1 - weights.shares)
        by_group = scaled.mean(axis=1)
        self.of_groups = by_group @ by_group.T
        self.of_seeds, self.rest = np.zeros((2, 2)), np.zeros((2, 2))
        if seeds >= ENOUGH_SEEDS:
            by_seed = values - self.mean[:, None]
            left = (scaled - by_group[:, None]).reshape(2, -1)
            self.of_seeds = by_seed @ by_seed.T / (seeds * (seeds - 1))
            self.rest = left @ left.T / (seeds * (seeds - 1))

    def keeps(self, angles: Array) -> NDArray[np.bool_]:
        """Whether the test at alpha = 1 - level does not reject, ``[angles]``."""
        c = np.stack([np.cos(angles), -np.sin(angles)])

        def form(matrix: Array) -> Array:
            # Rounding may make a form that is 0 slightly negative.
            of_angles: Array = np.maximum(np.einsum("ka,kl,la->a", c, matrix, c), 0.0)
            return of_angles

        of_seeds, of_groups = form(self.of_seeds), np.maximum(form(self.of_groups - self.rest), 0)
        variance = of_seeds + of_groups
        away = np.abs(self.mean @ c)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(variance > 0, of_seeds / variance, 0.0)
            statistic = np.where(variance > 0, away / np.sqrt(variance), 0.0)
        p = 2 * tail(statistic, share, self.df_seeds, self.df_groups)
        kept: NDArray[np.bool_] = np.where(variance > 0, p >= 1 - self.level, away == 0)
        return kept

    def strictest(self) -> tuple[float, float]:
        """(1, rho), up to a factor, where the mean over its standard error is about largest."""
        # This sum is positive semi-definite; with `rest` subtracted it might be indefinite.
        weights = np.linalg.lstsq(self.of_seeds + self.of_groups, self.mean, rcond=None)[0]
        return float(weights[0]), float(-weights[1])


def _ends(test: _Test, left: Array, right: Array, left_inside: NDArray[np.bool_]) -> Array:
    """The last angles inside the set, for pairs of angles with one inside and one outside."""
    within = np.where(left_inside, left, right)
    beyond = np.where(left_inside, right, left)
    for _ in range(_HALVINGS):
        middle = (within + beyond) / 2
        kept = test.keeps(middle)
        within, beyond = np.where(kept, middle, within), np.where(kept, beyond, middle)
    return within
