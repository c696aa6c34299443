"""Intervals of means and accuracies, on simulated results with known truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from helpers.group_contributions import contributions_of, squares_of
from numpy.typing import NDArray
from scipy import stats

from regreason_plugin.comparison.behrens_fisher import critical
from regreason_plugin.comparison.crossed_variance import (
    Estimate,
    Variance,
    accuracy_difference,
    mean,
    share,
    undefined,
    variance_of,
    variance_of_gap,
)
from regreason_plugin.comparison.group_variance import GroupWeights
from regreason_plugin.comparison.score_interval import score_bounds
from regreason_plugin.metrics.count_formulas import macro_f1_of_tables, qwk_of_tables
from regreason_plugin.metrics.influence import jackknife_influence, mean_influence

Array = NDArray[np.float64]
Groups = NDArray[np.int64]

TRIALS = 400
# A correct method's coverage of 0.95 stays within these limits in 99.9 % of such simulations.
SLACK = 3.3 * (0.95 * 0.05 / TRIALS) ** 0.5


def of_groups(member: Groups) -> GroupWeights:
    return GroupWeights.of_sizes(np.bincount(member).astype(float))


def as_mean(differences: Array, member: Groups, margin: float = float("nan")) -> Estimate:
    """The estimate from differences ``[seeds, documents]`` and each document's group."""
    values, contributions = differences.mean(axis=1), contributions_of(differences, member)
    weights = of_groups(member)
    alike = weights.intragroup_correlation(
        contributions.mean(axis=0), squares_of(differences, member)
    )
    return mean(values, variance_of(values, contributions, weights, alike), margin=margin)


def as_shares(
    differences: Array, member: Groups, margin: float = 0.01, level: float = 0.95
) -> Estimate:
    """The accuracy estimate from documents won (1), lost (-1) or neither (0)."""
    return accuracy_difference(
        float((differences < 0).mean()),
        float((differences > 0).mean()),
        differences.mean(axis=1),
        contributions_of(differences, member),
        squares_of(differences, member),
        of_groups(member),
        margin=margin,
        level=level,
    )


# --- the variance ------------------------------------------------------------------------------


def test_it_is_the_two_way_anova_of_a_balanced_table() -> None:
    """Mean squares from sums of squares, as in the textbook (Searle and others, chapter 4)."""
    random = np.random.default_rng(1)
    table = (
        random.normal(0.1, 1, (4, 1)) + random.normal(0, 2, (1, 30)) + random.normal(0, 1, (4, 30))
    )
    total = ((table - table.mean()) ** 2).sum()
    of_seeds = 30 * ((table.mean(1) - table.mean()) ** 2).sum()
    by_group = 4 * ((table.mean(0) - table.mean()) ** 2).sum()
    rest = (total - of_seeds - by_group) / (3 * 29)
    member = np.arange(30)
    found = variance_of(table.mean(1), contributions_of(table, member), of_groups(member))
    # Mean squares divided by S G = 120.
    assert found.seeds == pytest.approx(of_seeds / 3 / 120)
    assert found.groups == pytest.approx((by_group / 29 - rest) / 120)
    assert found.rest == pytest.approx(rest / 120)
    assert (found.df_seeds, found.df_groups) == (3, pytest.approx(29))
    assert found.whole == pytest.approx(table.mean(1).var(ddof=1) / 4 + found.groups)
    assert found.over == "seeds and groups"
    interval = as_mean(table, member)
    assert interval.value == pytest.approx(table.mean())
    reach = critical(0.95, found.seeds / found.whole, 3, 29) * found.whole**0.5
    assert (interval.low, interval.high) == pytest.approx(
        (table.mean() - reach, table.mean() + reach)
    )


def test_of_unequal_groups_it_is_cr2_of_the_means_less_cr2_of_what_is_left() -> None:
    random = np.random.default_rng(2)
    member = np.repeat(np.arange(6), [1, 2, 2, 5, 9, 1])
    table = random.normal(size=(3, 20)) + random.normal(0, 1, 6)[member]
    found = variance_of(table.mean(1), contributions_of(table, member), of_groups(member), 0.4)
    h = np.bincount(member) / 20

    def cr2(values: Array) -> float:
        c = np.array([((values - values.mean())[member == g]).sum() / 20 for g in range(6)])
        return float((c**2 / (1 - h)).sum())

    # The residuals of the two-way table by seed; S (S - 1) = 6.
    rest = sum(cr2(row - table.mean(0)) for row in table) / 6
    assert found.groups == pytest.approx(max(cr2(table.mean(0)) - rest, 0))
    assert found.rest == pytest.approx(min(rest, found.seeds))
    assert found.df_groups == of_groups(member).degrees_of_freedom(0.4)


@pytest.mark.parametrize(("along", "df"), [("seeds", 3), ("groups", 29)])
def test_where_only_one_of_the_two_varies_it_is_a_t_test(along: str, df: int) -> None:
    random = np.random.default_rng(4)
    values = random.normal(0.5, 2, (4, 1) if along == "seeds" else 30)
    found = as_mean(values + np.zeros((4, 30)), np.arange(30))
    expected = stats.ttest_1samp(values.ravel(), 0)
    assert found.variance is not None
    assert found.variance.of_seeds == (along == "seeds")
    assert found.p == pytest.approx(expected.pvalue, rel=1e-5)
    ends = tuple(expected.confidence_interval())
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-5)
    assert df == expected.df


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_are_fixed_and_only_groups_vary(seeds: int) -> None:
    """A t test of the groups' means, whatever the individual seeds do."""
    random = np.random.default_rng(6)
    member = np.repeat(np.arange(25), 3)
    table = random.normal(0.2, 1, (seeds, 75)) + random.normal(0, 5, (seeds, 1))
    found = as_mean(table, member)
    assert found.over == "groups"
    assert found.variance is not None
    assert (found.variance.df_seeds, found.variance.seeds) == (0, 0)
    by_group = table.mean(0).reshape(25, 3).mean(axis=1)
    expected = stats.ttest_1samp(by_group, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_equivalence_is_two_one_sided_tests() -> None:
    random = np.random.default_rng(8)
    by_group = random.normal(0.004, 0.03, 60)
    found = as_mean(by_group[None], np.arange(60), margin=0.02)
    # scipy's one-sided test on each side; the larger p value counts.
    below = stats.ttest_1samp(by_group, 0.02, alternative="less").pvalue
    above = stats.ttest_1samp(by_group, -0.02, alternative="greater").pvalue
    assert found.p_same == pytest.approx(max(below, above))
    far = as_mean(by_group[None] + 0.05, np.arange(60), margin=0.02)
    expected = stats.ttest_1samp(by_group + 0.05, 0.02, alternative="less").pvalue
    assert far.p_same == pytest.approx(expected)
    assert np.isnan(as_mean(by_group[None], np.arange(60)).p_same)


def alike_seeds(documents: int) -> Array:
    """Four seeds that mostly win and lose the same documents."""
    random = np.random.default_rng(3)
    chances = {"a": [-1.0, 0.0, 1.0], "p": [0.1, 0.6, 0.3]}
    common, own = (
        random.choice(size=documents, **chances),
        random.choice(size=(4, documents), **chances),
    )
    return np.where(random.random((4, documents)) < 0.7, common, own)


def test_documents_of_one_group_count_as_one() -> None:
    """Four copies of every document, in groups of four, give the same result as one copy."""
    differences = alike_seeds(60)
    copies, fours = np.repeat(differences, 4, axis=1), np.repeat(np.arange(60), 4)
    once, often = as_mean(differences, np.arange(60)), as_mean(copies, fours)
    for name in ("value", "se", "low", "high", "p"):
        assert getattr(often, name) == pytest.approx(getattr(once, name)), name
    alone = as_mean(copies, np.arange(240))
    assert alone.se < 0.8 * often.se


def test_an_accuracy_has_an_event_more_than_was_seen() -> None:
    """One document is added, as large as the observed ones after the mean over seeds."""
    differences = alike_seeds(60)
    # The variance of one document of one seed, and the part that remains after the mean over seeds.
    plain = (differences**2).mean() - differences.mean() ** 2
    of_mean = differences.mean(axis=0).var()
    for copies in (1, 4):
        n = 60 * copies
        drawn = np.repeat(differences, copies, axis=1), np.repeat(np.arange(60), copies)
        seen = as_mean(*drawn).variance
        assert seen is not None
        event = (of_mean / n + 1 / n**2) / (plain * n + 1)
        # At least the documents' variance with full correlation within groups; the event alike.
        least = of_mean / n * copies - seen.rest
        expected = seen.seeds + max(seen.groups, least) + event * copies
        assert as_shares(*drawn).se ** 2 == pytest.approx(expected)
    # Four copies in a group of four: as before, except that the event is a quarter of a group.
    once = as_shares(differences, np.arange(60))
    often = as_shares(*drawn)
    assert often.value == pytest.approx(once.value)
    assert often.se < once.se
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.03)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_model_and_its_copy_do_not_differ(seeds: int) -> None:
    found = as_mean(np.zeros((seeds, 20)), np.arange(20) // 2, margin=0.01)
    assert (found.value, found.low, found.high, found.p, found.p_same) == (0, 0, 0, 1, 0)
    found = as_mean(np.full((seeds, 20), 0.25), np.arange(20) // 2, margin=0.01)
    assert (found.value, found.low, found.high, found.p, found.p_same) == (0.25, 0.25, 0.25, 0, 1)


def test_what_is_undefined_stays_so() -> None:
    values = np.array([0.1, 0.2, np.nan])
    contributions = values[:, None] * np.array([1.0, -1.0, 2.0, -2.0])
    found = mean(values, variance_of(values, contributions, GroupWeights.of_sizes(np.ones(4))))
    assert np.isnan([found.value, found.se, found.low, found.high, found.p, found.p_same]).all()
    found = undefined(0.3)
    assert found.value == 0.3
    assert np.isnan([found.se, found.low, found.high, found.p, found.p_same]).all()
    assert found.variance is None


@pytest.mark.parametrize("lost", [40, 60])
def test_shares_are_the_same_where_the_interval_of_both_one_sided_tests_is_within(
    lost: int,
) -> None:
    """Two one-sided tests at 0.05 correspond to an interval at 0.90."""
    differences = np.repeat([-1.0, 1.0, 0.0], [lost, 50, 2000 - lost - 50])[None]
    of_both = as_shares(differences, np.arange(2000), level=0.90)
    margin = max(-of_both.low, of_both.high)
    found = as_shares(differences, np.arange(2000), margin)
    assert found.p_same == pytest.approx(0.05, rel=1e-4)
    assert as_shares(differences, np.arange(2000), margin / 2).p_same > 0.05


def test_the_jackknife_of_a_mean_is_its_influence() -> None:
    random = np.random.default_rng(6)
    totals = random.normal(size=(3, 40))
    whole, without = totals.mean(axis=1), (totals.sum(axis=1)[:, None] - totals) / 39
    values, influence = mean_influence(totals, np.ones(40))
    assert values == pytest.approx(whole)
    assert jackknife_influence(whole, without) == pytest.approx(influence)
    # Unequal groups: both average zero and differ only by the curvature of the ratio.
    sizes = random.integers(1, 7, 400).astype(np.float64)
    totals = random.normal(0.3, 1, (3, 400)) * sizes
    whole = totals.sum(axis=1) / sizes.sum()
    without = (totals.sum(axis=1)[:, None] - totals) / (sizes.sum() - sizes)
    influence = mean_influence(totals, sizes)[1]
    assert influence.mean(axis=1) == pytest.approx(0, abs=1e-12)
    jackknifed = jackknife_influence(whole, without)
    assert jackknifed.mean(axis=1) == pytest.approx(0, abs=1e-12)
    assert jackknifed == pytest.approx(influence, rel=0.02, abs=0.01)


# --- the gap between two samples ---------------------------------------------------------------


def gap_of(first: Array, second: Array, members: tuple[Groups, Groups]) -> Estimate:
    """The mean of one sample minus that of another, both ``[seeds, documents]``."""
    values = first.mean(axis=1) - second.mean(axis=1)
    of_both = [
        variance_of(sample.mean(axis=1), contributions_of(sample, member), of_groups(member))
        for sample, member in zip((first, second), members, strict=True)
    ]
    return mean(values, variance_of_gap(values, *of_both))


def test_of_one_seed_and_single_documents_the_gap_is_welchs_t_test() -> None:
    random = np.random.default_rng(1)
    first, second = random.gamma(0.5, 1, (1, 80)), random.gamma(0.5, 0.3, (1, 40))
    found = gap_of(first, second, (np.arange(80), np.arange(40)))
    expected = stats.ttest_ind(first[0], second[0], equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.over == "groups"


def test_what_a_seed_does_to_both_samples_alike_is_not_in_the_gap() -> None:
    random = np.random.default_rng(2)
    shift = random.normal(0, 3, (4, 1))
    first, second = random.normal(1, 1, (4, 50)), random.normal(0, 1, (4, 60))
    members = np.arange(50) // 2, np.arange(60) // 3
    alone, shifted = (gap_of(first + s, second + s, members) for s in (0, shift))
    assert (shifted.low, shifted.high) == pytest.approx((alone.low, alone.high))
    assert as_mean(first + shift, members[0]).se > 5 * alone.se
    # The variance of a two-way table, with each sample's own groups (as in `variance_of`).
    values = first.mean(axis=1) - second.mean(axis=1)
    groups = [
        max(one.groups, 0.0)
        for one in (
            variance_of(sample.mean(axis=1), contributions_of(sample, member), of_groups(member))
            for sample, member in zip((first, second), members, strict=True)
        )
    ]
    assert alone.se**2 == pytest.approx(values.var(ddof=1) / 4 + sum(groups))


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_the_gaps_interval_covers_the_truth(seeds: int, spread: float) -> None:
    """Skewed losses in unequal groups; every seed's model is better or worse on the train rows.

    With fewer than three seeds the true value is the one of these models, otherwise the one of all
    models.
    """
    random = np.random.default_rng([seeds, int(10 * spread)])
    members = (
        np.repeat(np.arange(40), random.integers(1, 6, 40)),
        np.repeat(np.arange(60), random.integers(1, 4, 60)),
    )
    covered = 0
    for _ in range(TRIALS):
        shift = random.normal(0, spread, (seeds, 1))
        samples = [
            (random.gamma(1, 0.5, len(np.unique(member)))[member] - 0.5)
            + random.normal(0, 0.5, (seeds, len(member)))
            for member in members
        ]
        found = gap_of(0.7 + samples[0], 0.3 + samples[1] - shift, members)
        truth = 0.4 + (shift.mean() if seeds < 3 else 0.0)
        covered += found.low <= truth <= found.high
    # The Behrens-Fisher interval of few seeds is conservative.
    assert covered / TRIALS > 0.95 - SLACK
    assert covered / TRIALS < (0.95 + SLACK if seeds == 1 else 0.995)


# --- few disagreements -------------------------------------------------------------------------


def won(seeds: int, documents: int, *places: tuple[int, int]) -> Array:
    """Differences that are 1 for these pairs (seed, document) and 0 for all others."""
    differences = np.zeros((seeds, documents))
    for place in places:
        differences[place] = 1
    return differences


def test_three_documents_in_a_group_each_are_no_certainty() -> None:
    found = as_shares(won(1, 20, (0, 2), (0, 7), (0, 11)), np.arange(20))
    mcnemar = stats.binomtest(3, 3).pvalue
    assert mcnemar == 0.25
    assert 0.5 * mcnemar < found.p < 1
    assert found.low < 0 < found.value < found.high < 1
    # Three of three documents.
    found = as_shares(np.ones((1, 3)), np.arange(3))
    assert found.value == 1
    assert found.low < 0.5
    assert found.p > 0.1


@pytest.mark.parametrize("seeds", [1, 3])
def test_two_that_never_disagree_have_an_interval_with_a_width(seeds: int) -> None:
    found = as_shares(np.zeros((seeds, 200)), np.arange(200))
    assert (found.value, found.p) == (0, 1)
    # Of 200 equal documents, 1.5 % of all documents or less might differ ("rule of three").
    assert 0.005 < found.high < 0.04
    assert found.low == pytest.approx(-found.high)
    in_heavy_groups = as_shares(np.zeros((seeds, 200)), np.arange(200) // 50)
    assert in_heavy_groups.high > 5 * found.high
    # So few documents cannot show equivalence within one point.
    assert found.p_same > 0.05
    assert as_shares(np.zeros((seeds, 4000)), np.arange(4000)).p_same < 0.001


@pytest.mark.parametrize("of", [as_mean, as_shares])
def test_three_seeds_that_each_win_another_document(of: Callable[..., Estimate]) -> None:
    """All seeds have the same figure from different documents: by chance, so without certainty."""
    found = of(won(3, 200, (0, 4), (1, 90), (2, 150)), np.arange(200))
    assert found.value == pytest.approx(1 / 200)
    assert 0.05 < found.p < 0.5
    assert found.low < 0 < found.high


def test_heavy_groups_that_show_nothing_may_yet() -> None:
    """Five wins among a hundred groups of one document; four groups of fifty may yet go as one."""
    sizes = np.array([50] * 4 + [1] * 100)
    member = np.repeat(np.arange(104), sizes)
    differences = won(1, 300, *((0, 200 + 20 * place) for place in range(5)))
    found = as_shares(differences, member)
    plain = 5 / 300 * (1 - 5 / 300)
    event = (plain / 300 + 1 / 300**2) / (plain * 300 + 1)
    # Kish's design effect with full correlation within groups.
    effect = (sizes**2).sum() / 300
    assert found.se**2 == pytest.approx((plain / 300 + event) * effect)
    assert found.se > 4 * as_mean(differences, member).se


def test_equal_counts_of_the_seeds_are_no_certainty() -> None:
    """Without an effect, at the level that a correction over 108 tests reads."""
    random, small = np.random.default_rng(10), 0
    trials = 1500
    for _ in range(trials):
        drawn = random.random((3, 200))
        differences = np.where(drawn < 0.01, 1.0, np.where(drawn < 0.02, -1.0, 0.0))
        small += as_mean(differences, np.arange(200)).p < 0.05 / 108
    # All seeds have the same count in 2 % of the trials.
    assert small <= 4


# --- score intervals ---------------------------------------------------------------------------


@pytest.mark.parametrize(("lost", "won_", "documents"), [(30, 55, 3000), (4, 9, 4000)])
def test_of_independent_documents_it_is_tangos_interval(
    lost: int, won_: int, documents: int
) -> None:
    """tests/comparison/test_score_interval.py checks the bounds against a maximised likelihood."""
    differences = np.repeat([-1.0, 1.0, 0.0], [lost, won_, documents - lost - won_])[None]
    found = as_shares(differences, np.arange(documents))
    z = stats.norm.isf(0.025)
    low, high = score_bounds(*map(np.asarray, (lost, won_, documents)), np.asarray(z), 0.5)
    width = float(high - low)
    assert (found.low, found.high) == pytest.approx((float(low), float(high)), abs=0.01 * width)
    # At a difference of 0, the statistic is McNemar's with a correction of half a document.
    expected = 2 * stats.norm.sf((won_ - lost - 0.5) / (won_ + lost) ** 0.5)
    assert found.p == pytest.approx(expected, rel=0.03)
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


@pytest.mark.parametrize(("right", "documents"), [(2400, 3000), (3, 3000), (0, 2500)])
def test_an_accuracy_of_independent_documents_has_wilsons_interval(
    right: int, documents: int
) -> None:
    correct = (np.arange(documents) < right).astype(float)[None]
    member = np.arange(documents)
    found = share(
        correct.mean(axis=1),
        contributions_of(correct, member),
        squares_of(correct, member),
        of_groups(member),
    )
    low, high = stats.binomtest(right, documents).proportion_ci(method="wilsoncc")
    assert found.value == right / documents
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01 * (high - low))


def test_an_accuracy_of_groups_that_go_as_one_has_that_of_as_many_groups() -> None:
    correct = (np.arange(400) < 300).astype(float)
    copies, member = np.repeat(correct, 5)[None], np.repeat(np.arange(400), 5)
    found = share(
        copies.mean(axis=1),
        contributions_of(copies, member),
        squares_of(copies, member),
        of_groups(member),
    )
    low, high = stats.binomtest(300, 400).proportion_ci(method="wilsoncc")
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03 * (high - low))


# --- coverage ----------------------------------------------------------------------------------


def simulate(
    random: np.random.Generator,
    seeds: int,
    groups: int,
    largest: int,
    discordance: float,
    of_seed: float,
    of_group: float,
) -> tuple[Array, Groups]:
    """Differences -1, 0, 1 with expectation 0: seeds and groups shift them at random."""
    sizes = random.integers(1, largest + 1, groups)
    member = np.repeat(np.arange(groups), sizes)
    leaning = random.normal(0, of_seed, seeds)[:, None] + random.normal(0, of_group, groups)[member]
    better = np.clip((discordance + leaning) / 2, 0, discordance)
    drawn = random.random((seeds, len(member)))
    differences = np.where(drawn < better, 1.0, np.where(drawn < discordance, -1.0, 0.0))
    return differences, member


CASES = [
    (seeds, groups, largest, discordance, lean)
    for seeds, groups, largest in ((3, 250, 1), (3, 80, 6), (10, 80, 6))
    for discordance in (0.02, 0.3)
    for lean in (0.0, 0.3)
]


@pytest.mark.parametrize(("seeds", "groups", "largest", "discordance", "lean"), CASES)
def test_intervals_cover_the_truth(
    seeds: int, groups: int, largest: int, discordance: float, lean: float
) -> None:
    random = np.random.default_rng([seeds, groups, int(100 * discordance), int(10 * lean)])
    spread = lean * discordance
    covered = {"mean": 0, "shares": 0}
    for _ in range(TRIALS):
        drawn = simulate(random, seeds, groups, largest, discordance, spread / 3, spread)
        for name, found in (("mean", as_mean(*drawn)), ("shares", as_shares(*drawn))):
            within = found.low <= 0 <= found.high
            covered[name] += within
            assert (found.p < 0.05) == (not within)
    rates = {name: count / TRIALS for name, count in covered.items()}
    assert min(rates.values()) >= 0.95 - SLACK, rates
    # With few disagreements the counts are coarse steps, and the score interval is conservative.
    assert rates["mean"] <= 0.99, rates


def test_what_ignores_the_crossing_or_the_groups_fails_the_same_simulation() -> None:
    random = np.random.default_rng(5)
    misses = {"ours": 0, "documents as independent": 0, "seeds nested in documents": 0}
    for _ in range(TRIALS):
        differences, member = simulate(random, 5, 80, 6, 0.3, 0.03, 0.15)
        found = as_mean(differences, member)
        misses["ours"] += not found.low <= 0 <= found.high
        by_document = stats.ttest_1samp(differences.mean(0), 0).pvalue
        misses["documents as independent"] += by_document < 0.05
        # Treats every document of every seed as an independent document.
        by_number = stats.ttest_1samp(differences.ravel(), 0).pvalue
        misses["seeds nested in documents"] += by_number < 0.05
    rates = {name: count / TRIALS for name, count in misses.items()}
    assert rates["ours"] <= 0.05 + SLACK
    assert rates["documents as independent"] > 0.12
    assert rates["seeds nested in documents"] > 0.12


HAD = np.array([0.35, 0.25, 0.2, 0.15, 0.05])
GIVEN = np.array([0.2, 0.2, 0.3, 0.2, 0.1])


def expected_counts(right: float) -> Array:
    """Counts for a million documents: right with this probability, else a random prediction."""
    counts: Array = 1e6 * HAD[:, None] * (right * np.eye(5) + (1 - right) * GIVEN)
    return counts


def simulated_tables(
    random: np.random.Generator, right: Array, member: Groups, labels: NDArray[np.int64]
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
    # Seeds and groups shift the probabilities up or down; the groups' shifts average out.
    better = [statistic(expected_counts(0.55 + lean)) for lean in (-of_seed, of_seed)]
    truth = np.mean(better) - statistic(expected_counts(0.4))
    trials, covered = 300, 0
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
        found = mean(values, variance_of(values, influence / 150, of_groups(member)))
        covered += found.low <= truth <= found.high
    assert covered / trials >= 0.95 - 3.3 * (0.95 * 0.05 / trials) ** 0.5
    assert covered / trials <= 0.995


# --- the tail that a correction over many tests reads --------------------------------------------


def satterthwaite(seeds: int, of_seeds: Array, of_groups: Array, rest: Array, df: float) -> Array:
    """One t for the sum of three mean squares: its standard error and degrees of freedom."""
    whole = of_seeds + of_groups - rest
    df_seeds, df_rest = seeds - 1, (seeds - 1) * df
    spread = of_seeds**2 / df_seeds + of_groups**2 / df + rest**2 / df_rest
    truncated = (of_seeds <= rest) | (of_groups <= rest)
    larger = np.maximum(of_seeds, of_groups)
    freedom = np.where(truncated, np.where(of_groups >= of_seeds, df, df_seeds), whole**2 / spread)
    return np.stack([np.where(truncated, larger, whole) ** 0.5, freedom])


@pytest.mark.parametrize(
    ("seeds", "of_seed", "of_group"), [(3, 5.0, 1.0), (3, 20.0, 2.0), (5, 8.0, 1.0)]
)
def test_far_out_it_errs_about_as_often_as_it_says(
    seeds: int, of_seed: float, of_group: float
) -> None:
    """100,000 draws of mean squares in units of the residual's; given them, the mean is normal."""
    random, draws, alpha, groups = np.random.default_rng(9), 100_000, 0.05 / 108, 200

    def drawn(expected: float, df: float) -> Array:
        return expected * random.chisquare(df, draws) / df

    a, b, rest = (
        drawn(of_seed + 1, seeds - 1),
        drawn(of_group + 1, groups - 1),
        drawn(1, (seeds - 1) * (groups - 1)),
    )
    true = (of_seed + of_group + 1) ** 0.5
    se, df = satterthwaite(seeds, a, b, rest, groups - 1)
    single = 2 * stats.norm.sf(stats.t.isf(alpha / 2, df) * se / true).mean()
    assert single > 5 * alpha
    beside = np.maximum(b - rest, 0)
    shares = np.linspace(0, 1, 401)
    points = [
        Variance(part, 1 - part, 0, seeds - 1, groups - 1).critical(1 - alpha) for part in shares
    ]
    reach = np.interp(a / (a + beside), shares, points) * np.sqrt(a + beside)
    ours = 2 * stats.norm.sf(reach / true).mean()
    assert ours < 2 * alpha
