"""How often the gate errs, on simulated models whose true change is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm, t

from regreason_plugin.compare.gate_bounds import accuracy_change, metric_change, times_needed
from regreason_plugin.compare.score_interval import score_bounds

ALPHA = 0.05
TRIALS = 2000
# What a share of 0.05 over so many trials stays below in all but 1 of 2,000 cases.
MOST = ALPHA + 3.3 * (ALPHA * (1 - ALPHA) / TRIALS) ** 0.5

Array = NDArray[np.float64]


def simulate(
    random: np.random.Generator, n: int, largest: int, alike: float, discordance: float, drop: float
) -> tuple[Array, Array, Array]:
    """Wins and losses by group ``[trials, groups]``, and the groups' sizes.

    The accuracy drops by ``drop`` on the average; a document does as its group does with a
    probability of ``alike``.
    """
    drawn = random.integers(1, largest + 1, n)
    sizes = drawn[: np.searchsorted(drawn.cumsum(), n) + 1]
    sizes[-1] -= sizes.sum() - n
    shape = (TRIALS, len(sizes))
    wins, losses, of_group = np.zeros(shape), np.zeros(shape), random.random(shape)
    for place in range(sizes.max()):
        follows = random.random(shape) < alike
        luck = np.where(follows, of_group, random.random(shape))
        losses += (luck < (discordance + drop) / 2) & (sizes > place)
        wins += (luck > 1 - (discordance - drop) / 2) & (sizes > place)
    return wins, losses, sizes.astype(float)


CASES = [
    (n, largest, alike, discordance, drop)
    for n, (largest, alike), (discordance, drop) in itertools.product(
        (100, 400, 2000),
        ((1, 0.0), (6, 0.0), (6, 0.7), (6, 1.0)),
        ((0.005, 0.005), (0.01, 0.01), (0.02, 0.01), (0.05, 0.05), (0.1, 0.02), (0.3, 0.05)),
    )
]


def test_the_gate_errs_at_most_alpha() -> None:
    for case in CASES:
        n, largest, alike, discordance, drop = case
        random = np.random.default_rng([n, largest, int(10 * alike), int(1000 * discordance)])
        change = accuracy_change(*simulate(random, n, largest, alike, discordance, drop))
        low, high = change.bounds(ALPHA)
        assert (low > -drop).mean() <= MOST, case
        assert (high < -drop).mean() <= MOST, case


@pytest.mark.parametrize(
    ("n", "largest", "alike", "discordance", "drop"),
    [(300, 1, 0.0, 0.02, 0.01), (400, 6, 1.0, 0.1, 0.02)],
)
def test_an_interval_without_correction_or_groups_errs_more(
    n: int, largest: int, alike: float, discordance: float, drop: float
) -> None:
    random = np.random.default_rng(2)
    wins, losses, sizes = simulate(random, n, largest, alike, discordance, drop)
    b, c = losses.sum(axis=1), wins.sum(axis=1)
    low, high = score_bounds(b, c, sizes.sum(), norm.isf(ALPHA))
    assert max((low > -drop).mean(), (high < -drop).mean()) > MOST


def test_the_gate_passes_a_model_that_is_as_good() -> None:
    random = np.random.default_rng(3)
    change = accuracy_change(*simulate(random, 5000, 3, 0.3, 0.05, 0.0))
    low, high = change.bounds(ALPHA)
    assert (low > -0.01).mean() > 0.5
    assert (low > -0.02).mean() > 0.97
    assert (high < -0.01).mean() < 0.001


@pytest.mark.parametrize("largest", [1, 4])
def test_the_mean_of_another_metric_errs_at_most_alpha(largest: int) -> None:
    random = np.random.default_rng([4, largest])
    sizes = random.integers(1, largest + 1, 200).astype(float)
    of_group = random.normal(0, 0.5, (TRIALS, 200)) * sizes
    totals = -0.03 * sizes + of_group + random.standard_t(4, (TRIALS, 200)) * np.sqrt(sizes)
    value = totals.sum(axis=1) / sizes.sum()
    influence = (totals - value[:, None] * sizes) / sizes.sum()
    low, high = metric_change(value, influence, sizes).bounds(ALPHA)
    assert (low > -0.03).mean() <= MOST
    assert (high < -0.03).mean() <= MOST


def test_rare_events_of_another_metric_err_at_most_alpha() -> None:
    """Predictions that are off by a label here and there: a normal interval has no width."""
    plain = 0.0
    for case in [case for case in CASES if case[3] <= 0.02]:
        n, largest, alike, discordance, drop = case
        random = np.random.default_rng([n, largest, int(10 * alike), int(1000 * discordance)])
        wins, losses, sizes = simulate(random, n, largest, alike, discordance, drop)
        totals = wins - losses
        value = totals.sum(axis=1) / n
        change = metric_change(value, (totals - value[:, None] * sizes) / n, sizes)
        low, high = change.bounds(ALPHA)
        assert (low > -drop).mean() <= MOST, case
        assert (high < -drop).mean() <= MOST, case
        width = t.isf(ALPHA, len(sizes) - 1) * change.se
        plain = max(plain, (value - width > -drop).mean())
    assert plain > 2 * ALPHA


def test_groups_that_never_disagree_count_as_one_document_each() -> None:
    sizes = np.full(50, 6.0)
    change = accuracy_change(np.zeros(50), np.zeros(50), sizes)
    expected = score_bounds(0, 0, 50, t.isf(ALPHA, 49), correction=0.5)
    assert change.design_effect() == pytest.approx(6)
    assert change.bounds(ALPHA) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_the_design_effect_is_that_of_statsmodels_clustered_variance() -> None:
    import statsmodels.api as sm

    random = np.random.default_rng(5)
    wins, losses, sizes = (
        x[0] if x.ndim > 1 else x for x in simulate(random, 3000, 6, 0.8, 0.4, 0.05)
    )
    # Which document of a group it is does not matter: as many +1, -1 and 0 as there are.
    rows = [
        [1.0] * int(w) + [-1.0] * int(x) + [0.0] * int(s - w - x)
        for w, x, s in zip(wins, losses, sizes, strict=True)
    ]
    y = np.concatenate([np.array(row) for row in rows])
    model = sm.OLS(y, np.ones(len(y)))
    groups = np.repeat(np.arange(len(sizes)), sizes.astype(int))
    clustered = model.fit(cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True})
    ratio = float((clustered.bse[0] / model.fit().bse[0]) ** 2)
    # The one disagreement that is added is 1 of some 1,200.
    assert accuracy_change(wins, losses, sizes).design_effect() == pytest.approx(ratio, rel=0.01)
    assert ratio > 2


def test_few_documents_do_not_pass_and_many_do() -> None:
    def nothing(n: int) -> tuple[float, float]:
        low, high = accuracy_change(np.zeros(n), np.zeros(n), np.ones(n)).bounds(ALPHA)
        return float(low), float(high)

    assert nothing(20)[0] < -0.01
    assert nothing(5000)[0] > -0.01
    times = times_needed(accuracy_change(np.zeros(20), np.zeros(20), np.ones(20)), 0.01, ALPHA)
    assert times is not None
    assert nothing(int(20 * times * 1.01))[0] > -0.01
    assert nothing(int(20 * times * 0.98))[0] < -0.01


def test_as_many_more_as_are_said_to_be_needed_decide() -> None:
    wins, losses = np.zeros(300), np.zeros(300)
    wins[:5] = losses[5:12] = 1
    for drop, place in ((0.02, 0), (0.001, 1)):
        change = accuracy_change(wins, losses, np.ones(300))
        times = times_needed(change, drop, ALPHA)
        assert times is not None
        more = int(np.ceil(times))
        bound = accuracy_change(
            np.tile(wins, more), np.tile(losses, more), np.ones(300 * more)
        ).bounds(ALPHA)[place]
        assert bound > -drop if place == 0 else bound < -drop
    assert times_needed(accuracy_change(wins, losses, np.ones(300)), 2 / 300, ALPHA) is None
