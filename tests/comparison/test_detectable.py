"""The smallest detectable difference against simulated samples, scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from regreason_plugin.comparison.crossed_variance import Variance
from regreason_plugin.comparison.detectable import MOST_GROUPS, detectable, needed

Array = NDArray[np.float64]
PAIRS = 80


def of(seeds: float, groups: float, df_seeds: int, df_groups: float) -> Variance:
    """The variance of a mean; a quarter of the seeds' part would vanish with endless groups."""
    return Variance(seeds, groups, seeds / 4, df_seeds, df_groups)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("df_seeds", "df_groups"), [(2, 99.0), (4, 15.0)])
def test_what_one_sample_names_is_found_in_the_next_as_often(
    df_seeds: int, df_groups: float, share: float
) -> None:
    random = np.random.default_rng([df_seeds, int(df_groups), int(10 * share)])
    true = np.array([share, 1 - share])
    dfs = np.array([df_seeds, df_groups])
    found, covers, again = [], [], 10
    for _ in range(PAIRS):
        smallest = detectable(of(*(true * random.chisquare(dfs) / dfs), df_seeds, df_groups))
        for next_sample in random.chisquare(dfs, (again, 2)) / dfs:
            variance = of(*(true * next_sample), df_seeds, df_groups)
            reach = variance.critical(0.95) * variance.whole**0.5
            found.append(smallest.value + random.normal(0, 1) > reach)
        covers.append((smallest.low, smallest.high))
    errors = 3.3 * (0.16 / PAIRS) ** 0.5
    # If both variances are unknown, the stated power is slightly conservative.
    assert 0.8 - errors <= np.mean(found) <= 0.85 + errors
    # The smallest difference for the true variances, by simulation of the test.
    samples = true * random.chisquare(dfs, (1000, 2)) / dfs
    reaches = [
        (v := of(*sample, df_seeds, df_groups)).critical(0.95) * v.whole**0.5 for sample in samples
    ]
    exact = float(np.quantile(np.array(reaches) + random.normal(0, 1, 1000), 0.8))
    low, high = np.array(covers).T
    assert ((low < exact) & (exact < high)).mean() >= 0.87


@pytest.mark.parametrize("power", [0.5, 0.8])
@pytest.mark.parametrize("df", [2, 6, 30])
def test_where_one_of_the_two_varies_it_is_a_t_tests(df: int, power: float) -> None:
    """The mean power of noncentral t tests, over the variances compatible with one sample."""
    for variance in (of(4.0, 0.0, df, 50.0), of(0.0, 4.0, 0, df)):
        smallest = detectable(variance, power=power)
        reach = stats.t.ppf(0.975, df)

        def found(ratio: float, smallest: float = smallest.value, reach: float = reach) -> float:
            # The true standard deviation is 2 / sqrt(ratio).
            away = smallest / 2 * ratio**0.5
            return float(stats.nct.sf(reach, df, away) * df * stats.chi2.pdf(df * ratio, df))

        mean, _ = integrate.quad(found, 0, np.inf, limit=200)
        assert mean == pytest.approx(power, abs=0.02)
        # There is one more observation than degrees of freedom.
        exact = TTestPower().solve_power(nobs=df + 1, alpha=0.05, power=power) * (df + 1) ** 0.5
        ends = [2 * (df / stats.chi2.ppf(q, df)) ** 0.5 * exact for q in (0.975, 0.025)]
        assert (smallest.low, smallest.high) == pytest.approx(ends, rel=0.02)


def test_fewer_seeds_say_less() -> None:
    few, some, many = (detectable(of(1.0, 0.5, df, 200.0)) for df in (2, 4, 20))
    assert few.value > some.value > many.value
    assert few.high / few.low > some.high / some.low > many.high / many.low
    assert many.low < many.value < many.high
    # With large samples, it is the normal test of statsmodels.
    large = detectable(of(0.0, 1.0, 0, 1e5))
    assert large == pytest.approx([2.8016] * 3, rel=0.01)


@pytest.mark.parametrize("difference", [0.05, 0.2])
def test_groups_needed_are_about_a_t_tests_where_only_groups_vary(difference: float) -> None:
    groups, seeds = needed(of(0.0, 1 / 400, 0, 399.0), 400, difference)
    expected = TTestPower().solve_power(effect_size=difference, alpha=0.05, power=0.8)
    assert groups == pytest.approx(expected, rel=0.02, abs=2)
    assert seeds is None


@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.3, 1.0), (1.0, 0.2)])
def test_what_is_just_detectable_needs_what_there_is(shares: tuple[float, float]) -> None:
    variance = of(*shares, 4, 199.0)
    smallest = detectable(variance).value
    groups, seeds = needed(variance, 200, smallest * 1.0001)
    assert groups is not None
    # The present number is enough but need not be the smallest: more groups can mean less power.
    assert groups <= 200
    assert seeds == 5
    more_groups, more_seeds = needed(variance, 200, smallest * 0.9)
    assert more_groups is None or more_groups > 200
    assert more_seeds is None or more_seeds > 5


def test_no_number_of_one_makes_up_for_the_other() -> None:
    by_seeds = Variance(1.0, 0.01, 0.005, 2, 199.0)
    groups, seeds = needed(by_seeds, 200, 1.0)
    assert groups is None
    assert seeds is not None
    assert seeds > 10
    by_groups = Variance(0.0, 1.0, 0.0, 2, 199.0)
    groups, seeds = needed(by_groups, 200, 0.5)
    assert groups is not None
    assert 2_000 < groups < MOST_GROUPS


def test_where_nothing_varies_nothing_is_known() -> None:
    nothing = of(0.0, 0.0, 2, 19.0)
    assert np.isnan(detectable(nothing)).all()
    assert needed(nothing, 20, 0.1) == (None, None)
