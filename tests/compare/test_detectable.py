"""What could have been found, against simulated results and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.power import NormalIndPower, TTestPower

from regreason_plugin.compare.crossed_variance import (
    Estimate,
    Table,
    bootstrapped,
    crossed,
    variance_of_mean,
)
from regreason_plugin.compare.detectable import MOST_GROUPS, detectable, needed

Array = NDArray[np.float64]
TRIALS = 20_000


def of_components(seeds: int, groups: int, seed: float, group: float, rest: float) -> Estimate:
    """What is found where the mean squares are what they are on average."""
    expected = np.array([rest + groups * seed, rest + seeds * group, rest])
    variance, df = (float(x) for x in variance_of_mean(expected, seeds, groups))
    table = Table(seeds, groups, *expected.tolist())
    return Estimate(0.0, variance**0.5, 0.0, 0.0, 1.0, df, "seeds and groups", table)


def results(seeds: int, groups: int, seed: float, group: float, rest: float) -> tuple[Array, Array]:
    """Values and influence whose variance components are exactly these."""
    random = np.random.default_rng(1)

    def scaled(values: Array, variance: float) -> Array:
        values = values - values.mean(axis=-1, keepdims=True)
        return values * (variance / values.var(ddof=1)) ** 0.5

    crossing = np.outer(
        scaled(random.normal(size=seeds), 1.0), scaled(random.normal(size=groups), 1.0)
    )
    by_seed = scaled(random.normal(size=seeds), seed + rest / groups)
    by_group = scaled(random.normal(size=groups), group + rest / seeds)
    return 0.3 + by_seed, by_group + rest**0.5 * crossing


SEED_SHARES = (0.0, 0.5, 4.0, 30.0)
CASES = [(3, 100, 0.0), (3, 3_000, 2.0), (4, 100, 8.0), (6, 100, 0.5), (10, 1_000, 0.0)]


@pytest.mark.parametrize("of_seed", SEED_SHARES)
@pytest.mark.parametrize(("seeds", "groups", "of_group"), CASES)
def test_it_is_found_as_often_as_it_says(
    seeds: int, groups: int, of_group: float, of_seed: float
) -> None:
    """Components in units of the rest's, as mean squares; and without a difference, coverage."""
    random = np.random.default_rng([seeds, int(of_group), int(of_seed)])
    seed, group = of_seed / groups, of_group / seeds
    smallest = detectable(of_components(seeds, groups, seed, group, 1.0))
    sd = (seed / seeds + group / groups + 1 / (seeds * groups)) ** 0.5
    df = np.array([[seeds - 1], [groups - 1], [(seeds - 1) * (groups - 1)]])
    expected = np.array([[1 + of_seed], [1 + of_group], [1.0]])
    squares = expected * random.chisquare(df, (3, TRIALS)) / df
    variance, freedom = variance_of_mean(squares, seeds, groups)
    half = stats.t.ppf(0.975, freedom) * variance**0.5
    noise = random.normal(0, sd, TRIALS)
    found = (np.abs(smallest + noise) > half).mean()
    wrongly = (np.abs(noise) > half).mean()
    assert found == pytest.approx(0.8, abs=0.005 + 3.3 * (0.16 / TRIALS) ** 0.5)
    assert 0.02 <= wrongly <= 0.08


@pytest.mark.parametrize(
    ("seeds", "discordance", "of_group", "of_seed"),
    [(3, 0.05, 0.0, 0.0), (3, 0.3, 0.2, 0.05), (5, 0.3, 0.2, 0.05), (10, 0.3, 0.0, 0.0)],
)
def test_what_one_result_says_is_found_in_the_next_as_often(
    seeds: int, discordance: float, of_group: float, of_seed: float
) -> None:
    random = np.random.default_rng(seeds)
    groups, trials = 300, 600

    def draw(difference: float) -> Estimate:
        leaning = (
            difference
            + discordance * of_group * random.normal(size=groups)
            + discordance * of_seed * random.normal(size=(seeds, 1))
        )
        better = np.clip((discordance + leaning) / 2, 0, discordance)
        drawn = random.random((seeds, groups))
        scores = np.where(drawn < better, 1.0, np.where(drawn < discordance, -1.0, 0.0))
        values = scores.mean(axis=1)
        return crossed(values, scores - values[:, None])

    found = np.mean([draw(detectable(draw(0.0))).p < 0.05 for _ in range(trials)])
    # What one result says of components is an estimate itself, of those that are 0 too high a one.
    assert found == pytest.approx(0.8, abs=0.05 + 3.3 * (0.16 / trials) ** 0.5)


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(("seeds", "groups", "along"), [(3, 40, "groups"), (6, 200, "seeds")])
def test_where_one_of_the_two_varies_it_is_a_t_tests(
    seeds: int, groups: int, along: str, power: float
) -> None:
    count = groups if along == "groups" else seeds
    estimate = of_components(seeds, groups, float(along == "seeds"), float(along == "groups"), 0.0)
    expected = TTestPower().solve_power(nobs=count, alpha=0.05, power=power)
    assert detectable(estimate, power=power) == pytest.approx(expected, rel=0.005)
    assert detectable(estimate, level=0.9, power=power) == pytest.approx(
        TTestPower().solve_power(nobs=count, alpha=0.1, power=power), rel=0.005
    )


def test_of_a_bootstrap_it_is_a_normal_tests() -> None:
    influence = np.random.default_rng(2).normal(0, 1, (1, 400))
    influence -= influence.mean()
    estimate = bootstrapped(0.0, np.zeros(100), influence)
    # Of one sample: statsmodels' is of two, the second endless.
    expected = NormalIndPower(ddof=0).solve_power(nobs1=400, alpha=0.05, power=0.8, ratio=0)
    sd = influence.std(ddof=1)
    assert detectable(estimate) == pytest.approx(expected * sd, rel=1e-4)
    groups, seeds = needed(np.zeros(1), influence, -0.1)
    assert seeds is None
    assert groups == np.ceil(
        NormalIndPower(ddof=0).solve_power(effect_size=0.1 / sd, alpha=0.05, power=0.8, ratio=0)
    )


@pytest.mark.parametrize("difference", [0.05, 0.2, 0.5])
def test_groups_needed_are_a_t_tests_where_only_groups_vary(difference: float) -> None:
    values, influence = results(4, 100, 0.0, 1.0, 0.0)
    groups, _ = needed(values, influence, difference)
    expected = TTestPower().solve_power(effect_size=difference, alpha=0.05, power=0.8)
    assert groups == pytest.approx(expected, rel=0.01, abs=1)


@pytest.mark.parametrize("components", [(0.01, 1.0, 1.0), (0.0, 0.2, 1.0), (0.02, 0.0, 1.0)])
def test_what_is_just_detectable_needs_what_there_is(
    components: tuple[float, float, float],
) -> None:
    values, influence = results(5, 200, *components)
    estimate = crossed(values, influence)
    assert estimate.table is not None
    assert estimate.se == pytest.approx(of_components(5, 200, *components).se, rel=1e-6)
    smallest = detectable(estimate)
    groups, seeds = needed(values, influence, smallest * 1.0001)
    assert groups is not None
    # More groups need not mean more power, nor fewer less: today's are enough, not the fewest.
    assert groups <= 200
    assert seeds == 5
    more_groups, more_seeds = needed(values, influence, smallest * 0.9)
    assert more_groups is None or more_groups > 200
    assert more_seeds is None or more_seeds > 5


def test_with_as_many_as_needed_it_is_just_detectable() -> None:
    values, influence = results(5, 200, 0.001, 1.0, 1.0)
    difference = 0.6 * detectable(crossed(values, influence))
    groups, _ = needed(values, influence, difference)
    assert groups is not None
    there = detectable(of_components(5, groups, 0.001, 1.0, 1.0))
    one_less = detectable(of_components(5, groups - 1, 0.001, 1.0, 1.0))
    assert there <= difference * (1 + 1e-9) < one_less * (1 + 1e-9)


def test_what_varies_less_than_chance_has_no_component() -> None:
    """The rest's mean square is the largest: the error is that of the largest other."""
    values, influence = results(4, 100, -0.002, -0.05, 1.0)
    found = crossed(values, influence)
    assert found.table is not None
    assert found.table.rest > max(found.table.of_seed, found.table.of_group)
    equal = found.se**2 * 400
    as_if = Estimate(0.0, found.se, 0.0, 0.0, 1.0, 3.0, found.over, Table(4, 100, *[equal] * 3))
    assert detectable(found) == pytest.approx(detectable(as_if))


def test_no_number_of_one_makes_up_for_the_other() -> None:
    by_seeds = results(3, 200, 1.0, 0.01, 0.01)
    groups, seeds = needed(*by_seeds, 0.3)
    assert groups is None
    assert seeds is not None
    assert seeds > 50
    by_groups = results(3, 200, 0.0, 1.0, 0.01)
    groups, seeds = needed(*by_groups, 0.05)
    assert seeds is None
    assert groups is not None
    assert 1_000 < groups < MOST_GROUPS


def test_where_nothing_varies_nothing_is_known() -> None:
    same = crossed(np.zeros(3), np.zeros((3, 20)))
    assert np.isnan(detectable(same))
    assert np.isnan(detectable(crossed(np.full(3, np.nan), np.full((3, 20), np.nan))))
    assert needed(np.zeros(3), np.zeros((3, 20)), 0.1) == (None, None)
    assert needed(np.zeros(1), np.zeros((1, 20)), 0.1) == (None, None)
