"""The Behrens-Fisher distribution against convolution, published quantiles and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from regreason_plugin.comparison.behrens_fisher import critical, tail


def convolved(x: float, share: float, df_seeds: float, df_groups: float) -> float:
    """P(sqrt(share) t_seeds + sqrt(1 - share) t_groups > x), by the integral over t_seeds."""
    a, b = share**0.5, (1 - share) ** 0.5
    # The integrand bends at 0, and where the other term is 0.
    value, _ = integrate.quad(
        lambda u: stats.t.pdf(u, df_seeds) * stats.t.sf((x - a * u) / b, df_groups),
        -np.inf,
        np.inf,
        epsabs=0,
        epsrel=1e-10,
        limit=500,
    )
    return float(value)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.97])
@pytest.mark.parametrize(("df_seeds", "df_groups"), [(2, 6.4), (2, 120), (4, 30), (9, 5.5)])
def test_the_tail_is_a_convolution(share: float, df_seeds: float, df_groups: float) -> None:
    for x in (0.0, 0.5, 1.9, 4.0, 9.0):
        expected = convolved(x, share, df_seeds, df_groups)
        assert tail(x, share, df_seeds, df_groups) == pytest.approx(expected, rel=3e-6)
        assert tail(-x, share, df_seeds, df_groups) == pytest.approx(1 - expected, rel=3e-6)


def test_with_many_groups_it_is_a_convolution_with_a_normal() -> None:
    for x in (1.0, 3.0, 6.0):
        expected, _ = integrate.quad(
            lambda u, x=x: stats.t.pdf(u, 2) * stats.norm.sf((x - 0.6 * u) / 0.8), -np.inf, np.inf
        )
        assert tail(x, 0.36, 2, 1e9) == pytest.approx(expected, rel=1e-5)


def test_where_only_one_varies_it_is_students() -> None:
    x = np.array([-3.0, 0.0, 0.7, 4.3, 12.0])
    np.testing.assert_allclose(tail(x, 0.0, 2, 17.5), stats.t.sf(x, 17.5))
    np.testing.assert_allclose(tail(x, 1.0, 3, 17.5), stats.t.sf(x, 3), rtol=3e-6)
    # Without a seed variance, its degrees of freedom are 0 and unused.
    assert critical(0.95, 0.0, 0, 17.5) == pytest.approx(stats.t.isf(0.025, 17.5))
    for level in (0.9, 0.95, 0.9995):
        expected = stats.t.isf((1 - level) / 2, 2)
        assert critical(level, 1.0, 2, 17.5) == pytest.approx(expected, rel=3e-6)
    # One call with fractions above 0 and fractions of 0.
    both = tail(np.array([1.5, 1.5]), np.array([0.0, 1.0]), 3, 17.5)
    np.testing.assert_allclose(both, [stats.t.sf(1.5, 17.5), stats.t.sf(1.5, 3)], rtol=3e-6)


# Sukhatme's table (Sankhya 4, 1938; also Fisher and Yates, Statistical Tables, VI): two-sided 5 %
# critical values by both degrees of freedom, and by the angle whose squared sine is the first
# variance's fraction.
@pytest.mark.parametrize(
    ("first", "second", "points"),
    [
        (6, 6, {0: 2.447, 15: 2.440, 30: 2.435, 45: 2.435, 60: 2.435, 75: 2.440, 90: 2.447}),
        (8, 6, {0: 2.447, 15: 2.430, 30: 2.398, 45: 2.364, 60: 2.331, 75: 2.310, 90: 2.306}),
    ],
)
def test_published_points(first: int, second: int, points: dict[int, float]) -> None:
    for angle, point in points.items():
        share = float(np.sin(np.deg2rad(angle)) ** 2)
        assert critical(0.95, share, first, second) == pytest.approx(point, abs=0.0015), angle


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999, 1 - 0.05 / 108])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 0.85, 1.0])
def test_the_critical_value_is_where_the_tail_is_half_of_the_rest(
    level: float, share: float
) -> None:
    for df_seeds, df_groups in ((2, 3.2), (2, 90.0), (9, 15.0)):
        point = critical(level, share, df_seeds, df_groups)
        assert 2 * tail(point, share, df_seeds, df_groups) == pytest.approx(1 - level, rel=3e-6)


@pytest.mark.parametrize("level", [0.95, 0.999])
def test_it_never_errs_more_often_than_it_says(level: float) -> None:
    """Conservative for any ratio of the variances (Robinson 1976), unlike Satterthwaite's t."""
    random, draws = np.random.default_rng(7), 400_000
    shares = np.linspace(0, 1, 201)
    points = [critical(level, float(share), 2, 4) for share in shares]
    by_satterthwaite = []
    for true_share in (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0):
        a = true_share * random.chisquare(2, draws) / 2
        b = (1 - true_share) * random.chisquare(4, draws) / 4
        se, df = np.sqrt(a + b), (a + b) ** 2 / (a**2 / 2 + b**2 / 4)
        # Given both variance estimates, the mean is normal with the true variance, which is 1.
        error = 2 * stats.norm.sf(np.interp(a / (a + b), shares, points) * se)
        assert error.mean() <= (1 - level) + 3.3 * error.std() / draws**0.5 + 1e-6, true_share
        by_satterthwaite.append(2 * stats.norm.sf(stats.t.isf((1 - level) / 2, df) * se).mean())
    assert max(by_satterthwaite) > 1.1 * (1 - level)
