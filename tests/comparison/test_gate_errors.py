"""Error rates of the gate, on simulated models with a known true change.

`tests/bench/operating_characteristics.py` has more designs.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.gate_designs import ALIKE, MIXED, Design, draw, draw_mean, draw_rare, sizes_of
from numpy.typing import NDArray
from scipy.stats import binom, norm, t

from regreason_plugin.comparison.gate_bounds import (
    accuracy,
    accuracy_change,
    design_effect,
    other_metric,
)
from regreason_plugin.comparison.score_interval import score_bounds

ALPHA = 0.05
TRIALS = 2000
# An error rate of 0.05 stays below this in 1,999 of 2,000 simulations of this size.
MOST = ALPHA + 3.3 * (ALPHA * (1 - ALPHA) / TRIALS) ** 0.5

Array = NDArray[np.float64]

LAYOUTS = [(name, int(sizes_of(name, 0).sum())) for name in MIXED]
LAYOUTS += [("equal 1", 300), ("equal 3", 300), ("equal 6", 100), ("equal 6", 600)]
LAYOUTS += [("heavy tail", 600)]
SHARES = [(0.005, 0.005), (0.02, 0.01), (0.02, 0.02), (0.05, 0.05), (0.1, 0.02), (0.3, 0.05)]
DESIGNS = [
    Design(layout, documents, behaviour, *shares)
    for (layout, documents), behaviour, shares in itertools.product(LAYOUTS, ALIKE, SHARES)
    if layout != "equal 1" or behaviour == "independent"
]
WHOLE_GROUPS_FAIL = Design("24x50+800x1", 2000, "whole", 0.02, 0.02)


def seeded(design: Design) -> np.random.Generator:
    return np.random.default_rng([DESIGNS.index(design)] if design in DESIGNS else 7)


def errors(bounds: tuple[Array, Array], drop: float) -> tuple[float, float]:
    """The fractions of simulations in which a model exactly at the limit passes and fails."""
    low, high = bounds
    return float((low > -drop).mean()), float((high < -drop).mean())


@pytest.mark.parametrize("layout", dict.fromkeys(name for name, _ in LAYOUTS))
def test_the_gate_errs_at_most_alpha(layout: str) -> None:
    for design in [one for one in DESIGNS if one.layout == layout]:
        change = accuracy_change(*draw(seeded(design), design, TRIALS))
        assert max(errors(change.bounds(ALPHA), design.drop)) <= MOST, design


@pytest.mark.parametrize(
    "design", [Design("equal 1", 300, "independent", 0.02, 0.01), WHOLE_GROUPS_FAIL]
)
def test_an_interval_without_correction_or_groups_errs_more(design: Design) -> None:
    wins, losses, sizes = draw(seeded(design), design, TRIALS)
    bounds = score_bounds(losses.sum(axis=1), wins.sum(axis=1), sizes.sum(), norm.isf(ALPHA))
    assert max(errors(bounds, design.drop)) > MOST


def test_the_groups_seen_to_differ_are_no_measure_of_groups_that_fail_as_a_whole() -> None:
    """Most documents are alone, and no large group has failed: the observed variance is small."""
    wins, losses, sizes = draw(seeded(WHOLE_GROUPS_FAIL), WHOLE_GROUPS_FAIL, TRIALS)
    b, c, n = losses.sum(axis=1), wins.sum(axis=1), sizes.sum()
    totals = wins - losses - ((c - b) / n)[:, None] * sizes
    seen = np.maximum((totals**2).sum(axis=1) / np.maximum(b + c - (c - b) ** 2 / n, 1), 1)
    z = t.isf(ALPHA, len(sizes) - 1)
    bounds = score_bounds(b / seen, c / seen, n / seen, z, correction=0.5)
    assert errors(bounds, WHOLE_GROUPS_FAIL.drop)[0] > 0.2


def test_one_group_of_many_documents_that_fails_as_a_whole_is_no_fail() -> None:
    design = Design("24x50+8000x1", 9200, "whole", 0.005, 0.005)
    change = accuracy_change(*draw(seeded(design), design, 1000))
    assert errors(change.bounds(ALPHA), design.drop)[1] <= 0.075


@pytest.mark.parametrize(
    "design",
    [
        Design("equal 6", 100, "whole", 0.3, 0.05),
        Design("4x50+100x1", 300, "whole", 0.3, 0.05),
        Design("24x50+800x1", 2000, "correlated", 0.1, 0.05),
        Design("heavy tail", 600, "correlated", 0.3, 0.05),
        Design("equal 1", 600, "independent", 0.05, 0.02),
    ],
)
def test_both_bounds_at_half_of_alpha_are_an_interval(design: Design) -> None:
    low, high = accuracy_change(*draw(seeded(design), design, TRIALS)).bounds(0.025)
    assert ((low <= -design.drop) & (-design.drop <= high)).mean() >= 0.935


def test_the_gate_passes_a_model_that_is_as_good() -> None:
    design = Design("equal 3", 5000, "correlated", 0.05, 0.0)
    bounds = accuracy_change(*draw(seeded(design), design, TRIALS)).bounds(ALPHA)
    assert errors(bounds, 0.01)[0] > 0.4
    assert errors(bounds, 0.02)[0] > 0.97
    assert errors(bounds, 0.01)[1] < 0.001


def test_many_disagreements_seen_leave_its_power() -> None:
    """The pairs of an unobserved event weigh little compared with those of many disagreements."""
    for layout, documents in (("equal 6", 1000), ("24x50+800x1", 2000)):
        design = Design(layout, documents, "independent", 0.3, 0.0)
        wins, losses, sizes = draw(seeded(design), design, TRIALS)
        plain = score_bounds(
            losses.sum(axis=1), wins.sum(axis=1), sizes.sum(), norm.isf(ALPHA), correction=0.5
        )
        bounds = accuracy_change(wins, losses, sizes).bounds(ALPHA)
        assert errors(bounds, 0.05)[0] > errors(plain, 0.05)[0] - 0.05


def test_one_models_accuracy_errs_at_most_alpha() -> None:
    for (layout, documents), behaviour, right in itertools.product(
        (("equal 1", 300), ("equal 6", 600), ("24x50+800x1", 2000)), ALIKE, (0.7, 0.95, 0.99)
    ):
        # Wins without losses are right predictions, and losses are wrong ones.
        design = Design(layout, documents, behaviour, 1 - right, 1 - right)
        _, wrong, sizes = draw(seeded(design), design, TRIALS)
        bounds = np.array([accuracy(sizes - one, sizes).bounds(ALPHA) for one in wrong])
        assert max(errors((bounds[:, 0], bounds[:, 1]), -right)) <= MOST, design


def test_an_accuracy_of_single_documents_is_bounded_as_a_binomial_one() -> None:
    # Clopper and Pearson's bound is exact; Wilson's with the continuity correction is close to it.
    right = np.concatenate([np.ones(90), np.zeros(10)])
    low, high = (float(bound) for bound in accuracy(right, np.ones(100)).bounds(ALPHA))
    assert binom.sf(89, 100, low) == pytest.approx(ALPHA, abs=0.02)
    assert binom.cdf(90, 100, high) == pytest.approx(ALPHA, abs=0.02)


@pytest.mark.parametrize("behaviour", ALIKE)
@pytest.mark.parametrize("layout", ["equal 6", "4x50+100x1", "heavy tail"])
def test_the_mean_of_another_metric_errs_at_most_alpha(layout: str, behaviour: str) -> None:
    for variance in (0.05, 4.0):
        design = Design(layout, 300, behaviour, variance, 0.02)
        bounds = other_metric(*draw_mean(seeded(design), design, TRIALS)).bounds(ALPHA)
        assert max(errors(bounds, design.drop)) <= MOST, design


def test_rare_events_of_another_metric_err_at_most_alpha() -> None:
    """Predictions that are rarely off by a label: a normal interval would have no width."""
    plain = 0.0
    for design in [one for one in DESIGNS if one.discordance <= 0.05]:
        value, influence, sizes = draw_rare(seeded(design), design, TRIALS)
        change = other_metric(value, influence, sizes)
        assert max(errors(change.bounds(ALPHA), design.drop)) <= MOST, design
        width = t.isf(ALPHA, len(sizes) - 1) * change.se
        plain = max(plain, (value - width > -design.drop).mean())
    assert plain > 2 * ALPHA


def test_groups_that_never_disagree_count_as_one_document_each() -> None:
    sizes = np.full(50, 6.0)
    change = accuracy_change(np.zeros(50), np.zeros(50), sizes)
    expected = score_bounds(0, 0, 50, t.isf(ALPHA, 49), correction=0.5)
    assert change.design_effect == pytest.approx(6)
    assert change.bounds(ALPHA) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_three_documents_that_are_all_won_say_little() -> None:
    low, high = accuracy_change(np.ones(3), np.zeros(3), np.ones(3)).bounds(0.025)
    assert float(low) < -0.3
    assert float(high) == pytest.approx(1)
    none, some = accuracy_change(np.zeros(3), np.zeros(3), np.ones(3)).bounds(0.025)
    assert float(none) < -0.5
    assert float(some) > 0.5


def test_the_design_effect_is_that_of_statsmodels_clustered_variance() -> None:
    import statsmodels.api as sm

    design = Design("equal 6", 3000, "correlated", 0.4, 0.05)
    wins, losses, sizes = draw(seeded(design), design, 1)
    # The order of documents within a group does not matter, only the counts of +1, -1 and 0.
    rows = [
        [1.0] * int(w) + [-1.0] * int(x) + [0.0] * int(s - w - x)
        for w, x, s in zip(wins[0], losses[0], sizes, strict=True)
    ]
    y = np.concatenate([np.array(row) for row in rows])
    model = sm.OLS(y, np.ones(len(y)))
    groups = np.repeat(np.arange(len(sizes)), sizes.astype(int))
    clustered = model.fit(cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True})
    ratio = float((clustered.bse[0] / model.fit().bse[0]) ** 2)
    # The unobserved event adds 8 pairs to some 6,000.
    found = design_effect(wins - losses, wins + losses, sizes)[0]
    assert found == pytest.approx(ratio, rel=0.01)
    assert ratio > 2


def test_few_documents_do_not_pass_and_many_do() -> None:
    def lowest(n: int) -> float:
        return float(accuracy_change(np.zeros(n), np.zeros(n), np.ones(n)).bounds(ALPHA)[0])

    assert lowest(20) < -0.01
    assert lowest(5000) > -0.01
