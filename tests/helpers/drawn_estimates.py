"""Normal values by seed and group, drawn directly, to test p-values and detectable differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from helpers.known_truth import GROUPS, Array
from helpers.simulated_pages import Share

from regreason_plugin.comparison.crossed_variance import Variance, mean, variance_of
from regreason_plugin.comparison.detectable import detectable
from regreason_plugin.comparison.group_variance import GroupWeights

# Size of the family for seven arms and eighteen settings: six differences in each setting.
FAMILY = 108
_LEVEL = 0.05


@dataclass(frozen=True)
class Drawn:
    """The components of a difference's standard error, relative to the component from groups.

    Attributes:
        groups: A key of `GROUPS`; all documents of a group are equal.
        seeds: Number of seeds.
        of_seeds: Standard error that comes from the seeds.
        rest: Remaining standard error, from the interaction of seeds and groups.
    """

    groups: str = "equal"
    seeds: int = 3
    of_seeds: float = 0.0
    rest: float = 0.5

    def estimate(
        self, random: np.random.Generator, difference: float = 0.0
    ) -> tuple[Array, Variance]:
        """The values by seed, and the variance of their mean as the project estimates it."""
        weights = GroupWeights.of_sizes(np.array(GROUPS[self.groups], dtype=np.float64))
        shares = weights.shares
        # With this scale, the mean over groups has a standard error of 1.
        unit = (shares**2).sum() ** -0.5
        group = unit * random.normal(size=len(shares))
        rest = self.rest * self.seeds**0.5 * unit * random.normal(size=(self.seeds, len(shares)))
        by_group = group + rest
        means = by_group @ shares
        seeds = self.of_seeds * self.seeds**0.5 * random.normal(size=self.seeds)
        contributions = shares * (by_group - means[:, None])
        return difference + means + seeds, variance_of(means + seeds, contributions, weights)


def tail_rate(drawn: Drawn, seed: list[int], draws: int) -> dict[str, float]:
    """Frequency of p < 0.05 / 108 without a true difference, divided by 0.05 / 108."""
    random, level, below = np.random.default_rng(seed), _LEVEL / FAMILY, 0
    for _ in range(draws):
        values, variance = drawn.estimate(random)
        below += 2 * variance.tail(abs(float(values.mean())) / variance.whole**0.5) < level
    return {
        "rate": below / draws / level,
        "error": max(below, 1) ** 0.5 / draws / level,
        "draws": draws,
    }


def promise(drawn: Drawn, seed: list[int], pairs: int) -> dict[str, list[float]]:
    """How often a new sample finds the difference that an earlier sample calls detectable.

    Returns:
        Two `Share` records: ``found``; and ``range``, how often the interval of the smallest
        detectable difference contains the true one.
    """
    random = np.random.default_rng(seed)
    found, inside, named, least = Share(), Share(), [], []
    for _ in range(pairs):
        _, variance = drawn.estimate(random)
        smallest = detectable(variance)
        values, variance = drawn.estimate(random, smallest.value)
        found.add(float(mean(values, variance).low > 0))
        named.append(smallest)
        # How far the mean may be below the true difference such that it is still found.
        values, variance = drawn.estimate(random)
        least.append(variance.critical(1 - _LEVEL) * variance.whole**0.5 - float(values.mean()))
    exact = float(np.quantile(least, 0.8))
    for smallest in named:
        inside.add(float(smallest.low < exact < smallest.high))
    return {
        name: [one.pages, one.total, one.squares]
        for name, one in (("found", found), ("range", inside))
    }
