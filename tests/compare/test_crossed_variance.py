"""Intervals of a difference, on simulated results whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats import contingency_tables

from regreason_plugin.compare.crossed_variance import (
    Estimate,
    bootstrapped,
    crossed,
    group_weights,
    mcnemar,
)
from regreason_plugin.metrics.count_formulas import macro_f1_of_tables, qwk_of_tables
from regreason_plugin.metrics.influence import jackknife_influence, mean_influence

Array = NDArray[np.float64]

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
) -> tuple[Array, NDArray[np.int64]]:
    """Differences -1, 0, 1 whose expectation is 0: seeds and groups lean either way by chance."""
    sizes = random.integers(1, largest + 1, groups)
    member = np.repeat(np.arange(groups), sizes)
    leaning = random.normal(0, of_seed, seeds)[:, None] + random.normal(0, of_group, groups)[member]
    better = np.clip((discordance + leaning) / 2, 0, discordance)
    drawn = random.random((seeds, len(member)))
    differences = np.where(drawn < better, 1.0, np.where(drawn < discordance, -1.0, 0.0))
    return differences, member


def group_totals(values: Array, groups: NDArray[np.int64]) -> Array:
    """Sums by group, ``[seeds, groups]``, of values ``[seeds, documents]``."""
    count = int(groups.max()) + 1
    return np.stack([np.bincount(groups, row, minlength=count) for row in values])


def over_both(differences: Array, member: NDArray[np.int64]) -> Estimate:
    """Of a mean: seeds by documents, and the group of each document."""
    sizes = np.bincount(member).astype(np.float64)
    return crossed(*mean_influence(group_totals(differences, member), sizes))


def over_groups(differences: Array, member: NDArray[np.int64], draws: int = 10_000) -> Estimate:
    """Of a mean, likewise, by the bootstrap."""
    sizes = np.bincount(member).astype(np.float64)
    totals = group_totals(differences, member)
    values, influence = mean_influence(totals, sizes)
    total = totals.mean(axis=0)
    one = np.zeros(len(sizes), dtype=np.int64)
    drawn = [(w @ total) / (w @ sizes) for w in group_weights(one, draws, seed=0)]
    return bootstrapped(float(values.mean()), np.concatenate(drawn), influence)


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
        found = over_both(
            *simulate(random, seeds, groups, largest, discordance, spread / 3, spread)
        )
        covered += found.low <= 0 <= found.high
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert 0.92 - SLACK / 2 <= covered / TRIALS <= 0.98 + SLACK / 2


def test_what_ignores_the_crossing_or_the_groups_fails_the_same_simulation() -> None:
    random = np.random.default_rng(5)
    misses = {"ours": 0, "documents as independent": 0, "seeds nested in documents": 0}
    for _ in range(TRIALS):
        differences, member = simulate(random, 5, 80, 6, 0.3, 0.03, 0.15)
        found = over_both(differences, member)
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


HAD = np.array([0.35, 0.25, 0.2, 0.15, 0.05])
GIVEN = np.array([0.2, 0.2, 0.3, 0.2, 0.1])


def expected_counts(right: float) -> Array:
    """Of a million documents, with predictions that are right with this probability, else drawn."""
    counts: Array = 1e6 * HAD[:, None] * (right * np.eye(5) + (1 - right) * GIVEN)
    return counts


def simulated_tables(
    random: np.random.Generator, right: Array, member: NDArray[np.int64], labels: NDArray[np.int64]
) -> Array:
    """Tables by seed and group, of documents right with probabilities ``[seeds, documents]``."""
    seeds, groups = len(right), int(member.max()) + 1
    guess = random.choice(5, right.shape, p=GIVEN)
    predicted = np.where(random.random(right.shape) < right, labels, guess)
    cell = ((np.arange(seeds)[:, None] * groups + member) * 5 + labels) * 5 + predicted
    counts = np.bincount(cell.ravel(), minlength=seeds * groups * 25)
    return counts.reshape(seeds, groups, 5, 5).astype(np.float64)


@pytest.mark.parametrize("statistic", [qwk_of_tables, macro_f1_of_tables])
@pytest.mark.parametrize(("seeds", "of_seed", "of_group"), [(3, 0.04, 0.0), (6, 0.02, 0.2)])
def test_intervals_of_a_jackknifed_statistic_cover_the_truth(
    statistic: Callable[[Array], Array], seeds: int, of_seed: float, of_group: float
) -> None:
    random = np.random.default_rng([seeds, statistic is qwk_of_tables])
    # Seeds and groups lean one way or the other; groups in the probabilities, which average out.
    better = [statistic(expected_counts(0.55 + lean)) for lean in (-of_seed, of_seed)]
    truth = np.mean(better) - statistic(expected_counts(0.4))
    trials, covered = 400, 0
    for _ in range(trials):
        member = np.repeat(np.arange(150), random.integers(1, 7, 150))
        labels = random.choice(5, len(member), p=HAD)
        by_group = of_group * random.choice([-1, 1], 150)[member]
        by_seed = of_seed * random.choice([-1, 1], (seeds, 1))
        values, influence = np.zeros(seeds), np.zeros((seeds, 150))
        for sign, right in ((1, 0.55 + by_seed + by_group), (-1, 0.4 + 0 * by_seed - by_group)):
            tables = simulated_tables(random, right, member, labels)
            total = tables.sum(axis=1)
            whole = statistic(total)
            values += sign * whole
            influence += sign * jackknife_influence(whole, statistic(total[:, None] - tables))
        found = crossed(values, influence)
        covered += found.low <= truth <= found.high
    assert abs(covered / trials - 0.95) <= 0.03 + 3.3 * (0.95 * 0.05 / trials) ** 0.5 / 2


def test_a_bootstraps_intervals_cover_the_truth() -> None:
    random = np.random.default_rng(8)
    covered = 0
    for _ in range(TRIALS):
        found = over_groups(*simulate(random, 1, 80, 6, 0.3, 0.0, 0.1), draws=400)
        covered += found.low <= 0 <= found.high
    assert 0.92 - SLACK / 2 <= covered / TRIALS <= 0.98 + SLACK / 2


def test_it_is_the_two_way_anova_of_a_balanced_table() -> None:
    """The mean squares from sums of squares, the textbook's way."""
    random = np.random.default_rng(1)
    table = (
        random.normal(0.1, 1, (4, 1)) + random.normal(0, 2, (1, 30)) + random.normal(0, 1, (4, 30))
    )
    found = over_both(table, np.arange(30))
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


@pytest.mark.parametrize(("along", "df"), [("seeds", 3), ("groups", 29)])
def test_where_only_one_of_the_two_varies_it_is_a_t_test(along: str, df: int) -> None:
    random = np.random.default_rng(4)
    # The other component comes out negative: means that are closer than the rest allows.
    rest = random.normal(0, 1, (4, 30))
    rest -= rest.mean(axis=1, keepdims=True)
    rest -= rest.mean(axis=0)
    means = random.normal(0, 2, (4, 1) if along == "seeds" else 30)
    found = over_both(means + rest, np.arange(30))
    expected = stats.ttest_1samp(means.ravel(), 0)
    assert (found.df, found.p) == pytest.approx((df, expected.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_the_jackknife_of_a_mean_is_its_influence() -> None:
    random = np.random.default_rng(6)
    totals = random.normal(size=(3, 40))
    whole, without = totals.mean(axis=1), (totals.sum(axis=1)[:, None] - totals) / 39
    values, influence = mean_influence(totals, np.ones(40))
    assert values == pytest.approx(whole)
    assert jackknife_influence(whole, without) == pytest.approx(influence)
    # Of unequal groups: both average zero, and differ by less than the ratio is curved.
    sizes = random.integers(1, 7, 400).astype(np.float64)
    totals = random.normal(0.3, 1, (3, 400)) * sizes
    whole = totals.sum(axis=1) / sizes.sum()
    without = (totals.sum(axis=1)[:, None] - totals) / (sizes.sum() - sizes)
    influence = mean_influence(totals, sizes)[1]
    assert influence.mean(axis=1) == pytest.approx(0, abs=1e-12)
    jackknifed = jackknife_influence(whole, without)
    assert jackknifed.mean(axis=1) == pytest.approx(0, abs=1e-12)
    assert jackknifed == pytest.approx(influence, rel=0.02, abs=0.01)


def test_one_model_an_arm_is_scipys_bootstrap_of_groups_of_one() -> None:
    random = np.random.default_rng(2)
    differences = random.choice([-1.0, 0.0, 1.0], (1, 150), p=[0.1, 0.7, 0.2])
    found = over_groups(differences, np.arange(150))
    expected = stats.bootstrap(
        (differences[0],), np.mean, n_resamples=20_000, method="percentile", rng=3
    )
    assert found.over == "groups"
    assert found.df is None
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.01)
    assert found.se == pytest.approx(expected.standard_error, rel=0.03)
    assert over_groups(differences, np.arange(150)) == found


def test_it_is_scipys_bootstrap_of_groups_of_several() -> None:
    random = np.random.default_rng(7)
    differences, member = simulate(random, 2, 120, 6, 0.3, 0.0, 0.1)
    found = over_groups(differences + 0.05, member)
    totals = group_totals(differences + 0.05, member).mean(axis=0)
    expected = stats.bootstrap(
        (totals, np.bincount(member)),
        lambda t, n, axis: t.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=3,
    )
    width = found.high - found.low
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.04 * width)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.04 * width)
    assert found.se == pytest.approx(expected.standard_error, rel=0.03)


@pytest.mark.parametrize("shift", np.linspace(1.8, 2.1, 7))
def test_an_interval_excludes_zero_where_p_is_small(shift: float) -> None:
    draws = np.random.default_rng(9).normal(shift, 1, 9_999).round(2)
    found = bootstrapped(shift, draws, np.ones((1, 2)))
    assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)
    assert found.p == pytest.approx(2 * stats.norm.sf(shift), rel=0.3)
    mirrored = bootstrapped(-shift, -draws, np.ones((1, 2)))
    assert (mirrored.p, mirrored.low, mirrored.high) == (found.p, -found.high, -found.low)


def test_no_number_of_draws_shows_that_p_is_zero() -> None:
    found = bootstrapped(1.0, np.linspace(0.5, 1.5, 999), np.ones((1, 2)))
    assert found.p == pytest.approx(2 / 1_000)


def test_a_statistic_that_is_often_undefined_has_no_interval() -> None:
    draws = np.random.default_rng(9).normal(3, 1, 1_000)
    influence = np.array([[-1.0, 1.0]])
    draws[:10] = np.nan
    few = bootstrapped(3.0, draws, influence)
    assert few == bootstrapped(3.0, draws[10:], influence)
    draws[10] = np.nan
    many = bootstrapped(3.0, draws, influence)
    assert (many.value, many.se) == (3.0, 1.0)
    assert np.isnan([many.low, many.high, many.p]).all()


def test_groups_are_drawn_again_within_their_strata() -> None:
    strata = np.array([1, 0, 2, 1, 0, 1, 1])
    (weights,) = group_weights(strata, 4_000, 3, block=4_000)
    for stratum, size in enumerate((2, 4, 1)):
        drawn = weights[:, strata == stratum]
        assert (drawn.sum(axis=1) == size).all()
        # A multinomial's mean and variance.
        assert drawn.mean(axis=0) == pytest.approx(1, abs=0.06)
        assert drawn.var(axis=0) == pytest.approx(1 - 1 / size, rel=0.1, abs=1e-9)
    again = list(group_weights(strata, 4_000, 3, block=7))
    assert [len(block) for block in again[-2:]] == [7, 3]
    assert (np.concatenate(again) == weights).all()
    assert not (next(group_weights(strata, 4_000, 4)) == weights[:250]).all()


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (7, 1), (1, 7), (5, 5), (40, 61)])
def test_mcnemar_is_statsmodels(better: int, worse: int) -> None:
    differences = np.repeat([1.0, -1.0, 0.0], [better, worse, 30])
    expected = contingency_tables.mcnemar([[20, better], [worse, 10]], exact=True)
    assert mcnemar(differences) == pytest.approx(min(expected.pvalue, 1))


def test_documents_of_one_group_count_as_one() -> None:
    """Every document four times over, in groups of four: the same as once."""
    random = np.random.default_rng(3)
    differences = random.choice([-1.0, 0.0, 1.0], (4, 60), p=[0.1, 0.6, 0.3])
    once = over_both(differences, np.arange(60))
    often = over_both(np.repeat(differences, 4, axis=1), np.repeat(np.arange(60), 4))
    assert (often.value, often.se, often.low) == pytest.approx((once.value, once.se, once.low))


@pytest.mark.parametrize("over", [over_both, over_groups])
def test_a_model_and_its_copy_do_not_differ(
    over: Callable[[Array, NDArray[np.int64]], Estimate],
) -> None:
    found = over(np.zeros((3, 20)), np.arange(20) // 2)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("shape", [(2, 20), (3, 1)])
def test_too_few_to_say_how_they_vary(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="three seeds and two groups"):
        crossed(np.zeros(shape[0]), np.zeros(shape))


def test_one_group_says_nothing() -> None:
    with pytest.raises(ValueError, match="two groups"):
        bootstrapped(0.0, np.zeros(100), np.zeros((1, 1)))


def test_what_is_undefined_stays_so() -> None:
    values = np.array([0.1, 0.2, np.nan])
    found = crossed(values, np.ones((3, 4)) * values[:, None])
    assert np.isnan([found.value, found.se, found.low, found.high, found.p]).all()
