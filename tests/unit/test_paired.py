"""Intervals of a mean difference, on simulated results whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from regreason_plugin.report.paired import mean_difference

TRIALS = 600
# Of a share of 0.95 over the trials, with what a correct method stays within 99.9 % of the time.
SLACK = 3.3 * (0.95 * 0.05 / TRIALS) ** 0.5


def simulate(
    random: np.random.Generator,
    seeds: int,
    groups: int,
    largest: int,
    discordance: float,
    of_seed: float,
    of_group: float,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Differences -1, 0, 1 whose expectation is 0: seeds and groups lean either way by chance."""
    sizes = random.integers(1, largest + 1, groups)
    member = np.repeat(np.arange(groups), sizes)
    leaning = random.normal(0, of_seed, seeds)[:, None] + random.normal(0, of_group, groups)[member]
    better = np.clip((discordance + leaning) / 2, 0, discordance)
    drawn = random.random((seeds, len(member)))
    differences = np.where(drawn < better, 1.0, np.where(drawn < discordance, -1.0, 0.0))
    return differences, member


CASES = [
    (seeds, groups, largest, discordance, lean)
    for seeds in (3, 10)
    for groups, largest in ((250, 1), (80, 6))
    for discordance in (0.02, 0.3)
    for lean in (0.0, 0.3)
]


@pytest.mark.parametrize(("seeds", "groups", "largest", "discordance", "lean"), CASES)
def test_intervals_cover_the_truth(
    seeds: int, groups: int, largest: int, discordance: float, lean: float
) -> None:
    random = np.random.default_rng([seeds, groups, int(100 * discordance), int(10 * lean)])
    spread = lean * discordance
    covered = 0
    for _ in range(TRIALS):
        found = mean_difference(
            *simulate(random, seeds, groups, largest, discordance, spread / 3, spread)
        )
        covered += found.low <= 0 <= found.high
        assert found.p is not None
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert 0.92 - SLACK / 2 <= covered / TRIALS <= 0.98 + SLACK / 2


def test_what_ignores_the_crossing_or_the_groups_fails_the_same_simulation() -> None:
    random = np.random.default_rng(5)
    misses = {"ours": 0, "documents as independent": 0, "seeds nested in documents": 0}
    for _ in range(TRIALS):
        differences, member = simulate(random, 5, 80, 6, 0.3, 0.03, 0.15)
        found = mean_difference(differences, member)
        misses["ours"] += not found.low <= 0 <= found.high
        misses["documents as independent"] += (
            stats.ttest_1samp(differences.mean(0), 0).pvalue < 0.05
        )
        # Every seed's document as one of its own kind, in a bootstrap over all of them.
        everything = differences.ravel()
        drawn = everything[random.integers(0, len(everything), (200, len(everything)))].mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        misses["seeds nested in documents"] += not low <= 0 <= high
    rates = {name: count / TRIALS for name, count in misses.items()}
    assert rates["ours"] <= 0.08 + SLACK / 2
    assert rates["documents as independent"] > 0.12
    assert rates["seeds nested in documents"] > 0.12


def test_it_is_the_two_way_anova_of_a_balanced_table() -> None:
    """The mean squares against statsmodels' textbook example, written out by sums of squares."""
    random = np.random.default_rng(1)
    table = (
        random.normal(0.1, 1, (4, 1)) + random.normal(0, 2, (1, 30)) + random.normal(0, 1, (4, 30))
    )
    found = mean_difference(table, np.arange(30))
    total = ((table - table.mean()) ** 2).sum()
    of_seeds = 30 * ((table.mean(1) - table.mean()) ** 2).sum()
    of_groups = 4 * ((table.mean(0) - table.mean()) ** 2).sum()
    rest = (total - of_seeds - of_groups) / (3 * 29)
    variance = table.mean(1).var(ddof=1) / 4 + table.mean(0).var(ddof=1) / 30 - rest / 120
    assert found.value == pytest.approx(table.mean())
    assert found.se == pytest.approx(variance**0.5)
    terms = [(of_seeds / 3, 3), (of_groups / 29, 29), (rest, 87)]
    df = (120 * variance) ** 2 / sum(ms**2 / freedom for ms, freedom in terms)
    assert found.df == pytest.approx(df)
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, df) * variance**0.5)


def test_one_model_an_arm_is_scipys_bootstrap_of_groups_of_one() -> None:
    random = np.random.default_rng(2)
    differences = random.choice([-1.0, 0.0, 1.0], (1, 150), p=[0.1, 0.7, 0.2])
    found = mean_difference(differences, np.arange(150))
    expected = stats.bootstrap(
        (differences[0],), np.mean, n_resamples=20_000, method="percentile", rng=3
    )
    assert found.over == "groups"
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.01)
    assert found.se == pytest.approx(expected.standard_error, rel=0.03)
    assert mean_difference(differences, np.arange(150)) == found


def test_documents_of_one_group_count_as_one() -> None:
    """Every document four times over, in groups of four: the same as once."""
    random = np.random.default_rng(3)
    differences = random.choice([-1.0, 0.0, 1.0], (4, 60), p=[0.1, 0.6, 0.3])
    once = mean_difference(differences, np.arange(60))
    often = mean_difference(np.repeat(differences, 4, axis=1), np.repeat(np.arange(60), 4))
    assert (often.value, often.se, often.low) == pytest.approx((once.value, once.se, once.low))


def test_a_model_and_its_copy_do_not_differ() -> None:
    found = mean_difference(np.zeros((3, 20)), np.arange(20) // 2)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_one_group_says_nothing() -> None:
    with pytest.raises(ValueError, match="two groups"):
        mean_difference(np.zeros((3, 20)), np.zeros(20, dtype=np.int64))
