"""Boundaries of planned looks against published ones, and against a multivariate normal."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from regreason_plugin.comparison.gate_bounds import accuracy_change
from regreason_plugin.comparison.planned_looks import boundaries, planned_look


@pytest.mark.parametrize(
    "published",
    [
        (2.963, 1.969),
        (3.710, 2.511, 1.993),
        (4.333, 2.963, 2.359, 2.014),
        (4.877, 3.357, 2.680, 2.290, 2.031),
    ],
)
def test_the_published_boundaries_at_0025(published: tuple[float, ...]) -> None:
    # Reboussin, DeMets, Kim and Lan, Controlled Clinical Trials 21, 2000, 190-207: the spending
    # function that resembles O'Brien and Fleming's, with equal shares.
    assert boundaries(0.025, len(published)) == pytest.approx(published, abs=6e-4)


def test_a_single_look_has_the_whole_of_alpha() -> None:
    look = planned_look(1, 1, 0.05)
    assert (look.alpha, look.spent) == (pytest.approx(0.05), pytest.approx(0.05))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_what_is_crossed_is_what_is_spent(alpha: float) -> None:
    bounds, shares = boundaries(alpha, 3), np.arange(1, 4) / 3
    correlation = np.sqrt(np.minimum.outer(shares, shares) / np.maximum.outer(shares, shares))
    for looks in (1, 2, 3):
        kept = multivariate_normal.cdf(
            bounds[:looks], cov=correlation[:looks, :looks], abseps=1e-8, releps=1e-8
        )
        spent = 2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(shares[looks - 1]))
        assert 1 - kept == pytest.approx(spent, abs=1e-6)
        assert planned_look(looks, 3, alpha).spent == pytest.approx(spent)


def test_four_looks_at_growing_documents_err_at_most_alpha_if_planned() -> None:
    random, drop, trials, share = np.random.default_rng(6), 0.02, 4000, 400
    luck = random.random((trials, 4 * share))
    losses, wins = (luck < 0.06).astype(float), (luck > 1 - 0.04).astype(float)
    planned = np.zeros((2, trials), dtype=bool)
    plain = np.zeros((2, trials), dtype=bool)
    for number in range(1, 5):
        seen = number * share
        change = accuracy_change(wins[:, :seen], losses[:, :seen], np.ones(seen))
        for crossed, alpha in ((plain, 0.05), (planned, planned_look(number, 4, 0.05).alpha)):
            low, high = change.bounds(alpha)
            crossed |= np.stack([low > -drop, high < -drop])
    assert (planned.mean(axis=1) <= 0.06).all()
    assert (plain.mean(axis=1) > 0.10).all()
