"""Fieller's confidence sets against published figures, the closed form and simulated results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from regreason_plugin.comparison import fieller as fieller_module
from regreason_plugin.comparison.comparison import Gap
from regreason_plugin.comparison.crossed_variance import mean, variance_of
from regreason_plugin.comparison.fieller import fieller
from regreason_plugin.comparison.group_variance import GroupWeights

Array = NDArray[np.float64]


def covers(gap: Gap, rho: float) -> bool:
    if gap.kind == "everything":
        return True
    assert gap.low is not None
    assert gap.high is not None
    if gap.kind == "between":
        return gap.low <= rho <= gap.high
    return rho <= gap.low or rho >= gap.high


def with_covariance(covariance: Array, groups: int) -> Array:
    """Contributions of one seed, ``[2, 1, groups]``, whose means have this covariance."""
    free = np.random.default_rng(0).normal(size=(2, groups))
    free -= free.mean(axis=1, keepdims=True)
    white = np.linalg.solve(np.linalg.cholesky(free @ free.T), free)
    # The variance of a mean over G groups is G / (G - 1) times the sum of the squares.
    scale = ((groups - 1) / groups) ** 0.5
    return (np.linalg.cholesky(covariance) @ white * scale)[:, None]


def equal(groups: int) -> GroupWeights:
    return GroupWeights.of_sizes(np.ones(groups))


def closed_form(means: Array, covariance: Array, df: int, level: float) -> Gap:
    """The set where (a - rho b)^2 <= t^2 (Va - 2 rho C + rho^2 Vb), by a quadratic's roots."""
    t2 = stats.t.ppf((1 + level) / 2, df) ** 2
    (a, b), ((va, c), (_, vb)) = means, covariance
    square, linear, constant = b**2 - t2 * vb, -2 * (a * b - t2 * c), a**2 - t2 * va
    if linear**2 < 4 * square * constant:
        return Gap(value=a / b, kind="everything", low=None, high=None)
    low, high = sorted(np.roots([square, linear, constant]).real)
    return Gap(value=a / b, kind="between" if square > 0 else "outside", low=low, high=high)


@pytest.mark.parametrize(
    ("means", "errors", "df", "level", "low", "high", "digits"),
    [
        # The documentation of DCSTATS, https://github.com/DCPROGS/DCSTATS, Fieller.
        ((14, 7), (3, 2), 10, 0.90, 1.051413, 4.414296, 6),
        # GraphPad's calculator, quoted there: means of 6 values with standard deviations 3 and 2.
        ((14, 7), (3 / 6**0.5, 2 / 6**0.5), 10, 0.90, 1.54, 2.64, 2),
        ((14, 7), (3 / 6**0.5, 2 / 6**0.5), 10, 0.95, 1.46, 2.83, 2),
        ((14, 7), (3 / 6**0.5, 2 / 6**0.5), 10, 0.99, 1.27, 3.36, 2),
    ],
)
def test_published_figures(
    means: tuple[float, float],
    errors: tuple[float, float],
    df: int,
    level: float,
    low: float,
    high: float,
    digits: int,
) -> None:
    contributions = with_covariance(np.diag(np.square(errors)), df + 1)
    values = np.array(means, dtype=float)[:, None]
    found = fieller(values, contributions, equal(df + 1), level=level)
    assert (found.value, found.kind) == (2, "between")
    assert found.low == pytest.approx(low, abs=0.51 * 10**-digits)
    assert found.high == pytest.approx(high, abs=0.51 * 10**-digits)


@settings(max_examples=150, deadline=None)
@given(
    a=st.floats(-5, 5),
    b=st.floats(-5, 5).filter(lambda b: abs(b) > 0.01),
    ratio_of_sd=st.floats(0.2, 5),
    correlation=st.floats(-0.95, 0.95),
    groups=st.integers(5, 60),
)
def test_with_one_seed_it_is_the_closed_form(
    a: float, b: float, ratio_of_sd: float, correlation: float, groups: int
) -> None:
    means = np.array([a, b])
    off = correlation * ratio_of_sd
    covariance = np.array([[ratio_of_sd**2, off], [off, 1.0]])
    found = fieller(means[:, None], with_covariance(covariance, groups), equal(groups))
    expected = closed_form(means, covariance, groups - 1, 0.95)
    assert found.value == pytest.approx(expected.value)
    assert found.kind == expected.kind
    if expected.kind != "everything":
        # Compared by angle, so that a distant end is as accurate as a near one.
        assert expected.low is not None
        assert expected.high is not None
        assert found.low is not None
        assert found.high is not None
        assert np.arctan(found.low) == pytest.approx(np.arctan(expected.low), abs=1e-6)
        assert np.arctan(found.high) == pytest.approx(np.arctan(expected.high), abs=1e-6)


def draw(
    random: np.random.Generator, rho: float, size: float, seeds: int, of_seed: float
) -> tuple[Array, Array]:
    """Three arms: the second gains ``rho`` times the gain of the third over the first."""
    arms = (
        random.normal(0, of_seed, (3, seeds, 1))
        + random.normal(0, 0.3, (3, 1, 60))
        + random.normal(0, 0.5, (3, seeds, 60))
    )
    gains = arms[1:] - arms[0] + size * np.array([rho, 1.0])[:, None, None]
    values = gains.mean(axis=2)
    return values, (gains - values[..., None]) / 60


@pytest.mark.parametrize("size", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(("seeds", "of_seed"), [(1, 0.0), (3, 0.0), (3, 0.1), (8, 0.05)])
def test_the_set_covers_the_truth_however_weak_the_denominator(
    seeds: int, of_seed: float, size: float
) -> None:
    random = np.random.default_rng([seeds, int(100 * size)])
    trials = 200
    sets = [fieller(*draw(random, 0.6, size, seeds, of_seed), equal(60)) for _ in range(trials)]
    covered = np.mean([covers(gap, 0.6) for gap in sets])
    assert abs(covered - 0.95) <= 0.03 + 3.3 * (0.95 * 0.05 / trials) ** 0.5 / 2
    unbounded = np.mean([gap.kind != "between" for gap in sets])
    if size == 0:
        assert unbounded > 0.85
    if size == 1 and of_seed < 0.1:
        assert unbounded < 0.02


@pytest.mark.parametrize("size", [0.0, 0.15, 0.5])
@pytest.mark.parametrize("seeds", [3, 5])
def test_it_is_what_the_crossed_test_does_not_reject(seeds: int, size: float) -> None:
    """A ratio is in the set exactly if the interval of numerator - rho * denominator holds 0."""
    random = np.random.default_rng([seeds, int(100 * size)])
    for _ in range(15):
        values, contributions = draw(random, 0.5, size, seeds, 0.05)
        found = fieller(values, contributions, equal(60))
        ends = [end for end in (found.low, found.high) if end is not None]
        near = [end + step for end in ends for step in (-1e-6, 1e-6)]
        for rho in [*np.tan(random.uniform(-np.pi / 2, np.pi / 2, 30)), 1e9, *near]:
            kept = kept_at(float(rho), values, contributions)
            # Truncation may leave a hole that the set does not report; the set then contains more.
            assert covers(found, float(rho)) >= kept
            if rho in near:
                assert covers(found, float(rho)) == kept


def kept_at(rho: float, values: Array, contributions: Array) -> bool:
    """Whether the interval of numerator - rho * denominator contains zero."""
    away, by_group = values[0] - rho * values[1], contributions[0] - rho * contributions[1]
    test = mean(away, variance_of(away, by_group, equal(by_group.shape[1])))
    return test.low <= 0 <= test.high


def test_of_several_holes_the_largest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole is where the test rejects; in angles, which run from -1.57 to 1.57."""
    holes = [(-1.1, -0.9), (-0.6, -0.1), (1.2, 1.3)]

    def keeps(_: object, angles: Array) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = ~np.any(
            [(low < angles) & (angles < high) for low, high in holes], axis=0
        )
        return kept

    monkeypatch.setattr(fieller_module._Test, "keeps", keeps)
    found = fieller(*draw(np.random.default_rng(3), 0.6, 0.8, 3, 0.0), equal(60))
    assert found.kind == "outside"
    assert found.low is not None
    assert found.high is not None
    assert np.arctan([found.low, found.high]) == pytest.approx((-0.6, -0.1))
    # If a hole contains infinity, the set reports that hole.
    holes[2] = (1.2, np.inf)
    holes[0] = (-np.inf, -0.9)
    found = fieller(*draw(np.random.default_rng(3), 0.6, 0.8, 3, 0.0), equal(60))
    assert found.kind == "between"
    assert np.arctan([found.low, found.high]) == pytest.approx((-0.9, 1.2))


def test_a_narrow_hole_is_found() -> None:
    """An arm that is almost exactly 0.7 of the other: the test rejects only near there."""
    means, noise = np.array([0.70003, 1.0]), 1e-10
    covariance = np.array([[0.49 + noise, 0.7], [0.7, 1.0]])
    found = fieller(means[:, None], with_covariance(covariance, 30), equal(30))
    expected = closed_form(means, covariance, 29, 0.95)
    assert found.kind == expected.kind == "outside"
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_turning_the_two_around_turns_the_set_around() -> None:
    random = np.random.default_rng(11)
    values, contributions = draw(random, 0.5, 0.6, 4, 0.02)
    one, other = (
        fieller(values, contributions, equal(60)),
        fieller(values[::-1], contributions[::-1], equal(60)),
    )
    assert one.kind == "between"
    assert one.low is not None
    assert one.high is not None
    assert one.value is not None
    assert other.value == pytest.approx(1 / one.value)
    if one.low > 0:
        assert (other.low, other.high) == pytest.approx((1 / one.high, 1 / one.low))
    else:
        assert other.kind == "outside"
        assert (other.low, other.high) == pytest.approx((1 / one.low, 1 / one.high))


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_explanation_keeps_all_of_its_own_gain(seeds: int) -> None:
    values, contributions = draw(np.random.default_rng(1), 1.0, 0.1, seeds, 0.05)
    found = fieller(values[[1, 1]], contributions[[1, 1]], equal(60))
    assert found == Gap(value=1.0, kind="between", low=1.0, high=1.0)


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_copy_of_the_baseline_keeps_nothing(seeds: int) -> None:
    values, contributions = draw(np.random.default_rng(1), 0.0, 2.0, seeds, 0.0)
    values[0], contributions[0] = 0, 0
    assert fieller(values, contributions, equal(60)) == Gap(
        value=0.0, kind="between", low=0.0, high=0.0
    )


@pytest.mark.parametrize("seeds", [1, 4])
def test_an_exact_share_has_no_uncertainty(seeds: int) -> None:
    values, contributions = draw(np.random.default_rng(1), 0.0, 2.0, seeds, 0.0)
    values[0], contributions[0] = 0.3 * values[1], 0.3 * contributions[1]
    found = fieller(values, contributions, equal(60))
    assert found.kind == "between"
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.3, 0.3), abs=1e-9)


def test_of_no_gain_there_is_no_share() -> None:
    values, contributions = draw(np.random.default_rng(1), 0.5, 0.3, 4, 0.05)
    values[1] -= values[1].mean()
    values[1] = np.array([0.25, -0.25, 0.125, -0.125])
    found = fieller(values, contributions, equal(60))
    assert found.value is None
    assert found.kind in ("outside", "everything")
    nothing = fieller(np.zeros((2, 3)), np.zeros((2, 3, 9)), equal(9))
    assert nothing == Gap(value=None, kind="everything", low=None, high=None)


def test_one_group_says_nothing() -> None:
    with pytest.raises(ValueError, match="two groups"):
        fieller(np.zeros((2, 3)), np.zeros((2, 3, 1)), equal(1))


def test_heavy_groups_weigh_as_in_a_means_own_test() -> None:
    """CR2 and its degrees of freedom, one seed: the set ends where the t test changes."""
    random = np.random.default_rng(12)
    weights = GroupWeights.of_sizes(np.array([40.0, 25.0, *[1.0] * 35]))
    gains = random.normal([[0.6], [1.0]], 0.3, (2, 37))
    values = gains @ weights.shares
    contributions = weights.shares * (gains - values[:, None])
    found = fieller(values[:, None], contributions[:, None], weights)
    reach = stats.t.isf(0.025, weights.degrees_of_freedom())
    assert found.kind == "between"
    for end in (found.low, found.high):
        assert end is not None
        away = contributions[0] - end * contributions[1]
        se = (away**2 / (1 - weights.shares)).sum() ** 0.5
        assert abs(values[0] - end * values[1]) == pytest.approx(reach * se, rel=1e-6)
