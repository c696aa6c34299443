"""Tango's interval against his paper and against a likelihood maximised by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from regreason_plugin.comparison.score_interval import score_bounds, score_statistic

Z = norm.isf(0.025)


def _slow_statistic(b: float, c: float, n: float, d: float) -> float:
    """Z(d), with the constrained maximum likelihood estimate found by search."""
    least, most = max(0.0, -d), (1 - d) / 2

    def surprise(q: float) -> float:
        cells = [(b, q), (c, q + d), (n - b - c, 1 - 2 * q - d)]
        return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

    q = minimize_scalar(
        surprise, bounds=(least, most), options={"xatol": 1e-12}, method="bounded"
    ).x
    return float((c - b - n * d) / np.sqrt(n * (2 * q + d - d * d)))


def test_the_interval_of_the_paper() -> None:
    # Tango 1998: the example of 21 pairs, of which 7 and 1 are discordant.
    low, high = score_bounds(7, 1, 21, Z)
    assert (round(float(low), 3), round(float(high), 3)) == (-0.517, -0.026)


@pytest.mark.parametrize("n", [5, 20, 300])
def test_two_that_never_disagree_leave_a_width(n: int) -> None:
    low, high = score_bounds(0, 0, n, Z)
    assert float(high) == pytest.approx(Z**2 / (n + Z**2), abs=1e-9)
    assert float(low) == pytest.approx(-float(high))


@pytest.mark.parametrize(
    ("b", "c", "n"), [(7, 1, 21), (0, 3, 40), (3, 0, 40), (12, 9, 200), (1.5, 0.25, 33.3)]
)
def test_the_bounds_are_those_of_a_likelihood_maximised_by_search(
    b: float, c: float, n: float
) -> None:
    low, high = (float(bound) for bound in score_bounds(b, c, n, Z))
    estimate = (c - b) / n
    slow_low = brentq(lambda d: _slow_statistic(b, c, n, d) - Z, -0.999, estimate - 1e-9)
    slow_high = brentq(lambda d: _slow_statistic(b, c, n, d) + Z, estimate + 1e-9, 0.999)
    assert (low, high) == pytest.approx((slow_low, slow_high), abs=1e-5)


def test_turning_the_two_round_turns_the_interval_round() -> None:
    random = np.random.default_rng(1)
    n = random.integers(2, 500, 200).astype(float)
    b = np.floor(random.random(200) * n / 2)
    c = np.floor(random.random(200) * n / 2)
    for correction in (0.0, 0.5):
        low, high = score_bounds(b, c, n, Z, correction)
        other_low, other_high = score_bounds(c, b, n, Z, correction)
        np.testing.assert_allclose(low, -other_high, atol=1e-9)
        np.testing.assert_allclose(high, -other_low, atol=1e-9)
        assert (low <= (c - b) / n).all()
        assert (high >= (c - b) / n).all()


def test_the_correction_takes_half_a_document_off() -> None:
    plain = score_statistic(10.0, 4.0, 200.0, 0.02)
    corrected = score_statistic(10.0, 4.0, 200.0, 0.02, correction=0.5)
    assert corrected / plain == pytest.approx((10 - 4 + 4 - 0.5) / (10 - 4 + 4))
    assert score_statistic(10.0, 4.0, 200.0, -0.03, correction=0.5) == 0


def test_all_lost_and_all_won_end_at_the_ends() -> None:
    low, high = score_bounds([30, 0], [0, 30], 30, Z)
    assert (low[0], high[1]) == pytest.approx((-1, 1), abs=1e-9)
    assert -1 < high[0] < 0 < low[1] < 1
