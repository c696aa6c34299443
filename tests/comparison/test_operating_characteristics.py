"""The short form of tests/bench/operating_characteristics.py: simulations with known truth.

The limits are those of docs/explanation/operating_characteristics.md, with room for the smaller
number of simulated comparisons.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers.characteristic_cells import CELLS, all_pairs
from helpers.characteristic_tables import LEAST, MOST_FALSE
from helpers.drawn_estimates import Drawn, promise, tail_rate
from helpers.gate_characteristics import errors, layouts, over_looks
from helpers.gate_designs import Design as GateDesign
from helpers.known_truth import GROUPS, Design, Truth, simulate
from helpers.simulated_pages import MARGIN, Share, is_false, tally

from regreason_plugin.comparison.comparison import Difference
from regreason_plugin.metrics.group_sums import statistics_of

# A fraction deviates from its true value by this many Monte Carlo errors in 1 of 2,000 cases.
FAR = 3.3


def reaches(share: Share, bar: float) -> bool:
    """Whether the observed fraction is compatible with a true one of at least this."""
    return share.value + FAR * max(share.error, (bar * (1 - bar) / share.pages) ** 0.5) >= bar


def stays_below(share: Share, bar: float) -> bool:
    """Whether the observed fraction is compatible with a true one of at most this."""
    return share.value - FAR * max(share.error, (bar * (1 - bar) / share.pages) ** 0.5) <= bar


# --- the simulation itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "design",
    [
        Design(groups="large", seeds=1, arms=3, effects=(0, 0.02, -0.03), sharpness=(1, 0.5, 0)),
        Design(groups="large", seeds=2, accuracy=0.02, discordance=0.02, spread=0.005),
        Design(groups="large", seeds=1, accuracy=0.99, discordance=0.005, alike=1.0),
    ],
)
def test_the_truth_is_what_a_large_sample_shows(design: Design) -> None:
    models = simulate(design, np.random.default_rng(1))
    (answers,) = models.answers.values()
    statistics, truth = statistics_of(answers), Truth(design)
    metrics = ("acc", "macro_f1", "qwk", "mae", "nll", "overconfidence", "label_entropy")
    for metric in metrics:
        true = [
            value
            for arm in range(design.arms)
            for value in truth.of_model(metric, arm, models.shifts[arm, :, 0])
        ]
        values, influence = statistics[metric]
        error = (influence**2).sum(axis=1) ** 0.5 / influence.shape[1]
        assert values == pytest.approx(true, abs=FAR * error.max() + 1e-4), metric
    right = np.stack([one.correct for one in answers])
    base, *others = right[0], *right[design.seeds :]
    if not design.spread and not design.effects:
        error = (design.discordance / len(GROUPS["large"])) ** 0.5
        assert (base != others[0]).mean() == pytest.approx(design.discordance, abs=FAR * error)
    first, second = (right[0].reshape(-1, 2) - right[0].mean()).T
    assert (first * second).mean() / right[0].var() == pytest.approx(design.alike, abs=0.06)


def test_every_possible_pair_of_levels_is_covered() -> None:
    designs = all_pairs()
    assert all(design.possible for design in designs)
    for one in ("heavy tail", "4x50+100x1", "10x50+300x1", "equal"):
        assert {d.seeds for d in designs if d.groups == one} == {1, 2, 3, 5, 10}
    assert not Design(accuracy=0.99, discordance=0.3).possible
    assert len({cell.name for cell in CELLS}) == len(CELLS)


def test_what_is_false_is_called_so() -> None:
    assert is_false(Difference(value=0.1, finding="higher"), 0.0)
    assert is_false(Difference(value=-0.1, finding="lower"), 0.01)
    assert is_false(Difference(value=0.0, finding="higher and same"), MARGIN)
    assert not is_false(Difference(value=0.1, finding="higher"), 0.005)
    assert not is_false(Difference(value=0.0, finding="same"), -0.005)
    assert not is_false(Difference(value=0.1, finding="unclear"), 0.0)
    assert not is_false(Difference(value=0.1), 0.0)


# --- the bars -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("design", "pages"),
    [
        # Few disagreements; few heavy groups; seeds that vary; few right predictions.
        (Design("equal", 1, accuracy=0.9, discordance=0.005, effects=(0.0, 0.004)), 250),
        (Design("4x50+100x1", 1, accuracy=0.9, discordance=0.1, alike=1.0), 250),
        (Design("10x50+300x1", 1, discordance=0.02, alike=1.0, effects=(0.0, 0.05)), 150),
        (Design("heavy tail", 3, spread=0.024, discordance=0.1), 150),
        (Design("10x50+300x1", 3, accuracy=0.02, discordance=0.02, alike=0.5), 150),
    ],
)
def test_intervals_cover_the_truth(design: Design, pages: int) -> None:
    counts = tally(design, pages, [1]).shares
    covered = {name: one for name, one in counts.items() if name.startswith("cover")}
    assert {"cover pooled acc", "cover pooled nll", "cover pooled acc alone"} <= {*covered}
    for name, one in covered.items():
        assert reaches(one, LEAST), (name, one.value)


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.024)])
def test_without_an_effect_hardly_a_page_makes_a_claim(seeds: int, spread: float) -> None:
    design = Design(seeds=seeds, arms=7, spread=spread)
    counts = tally(design, 80, [2], claims_only=True).shares
    assert stays_below(counts["false claim"], MOST_FALSE), counts["false claim"].value


def test_calibrated_models_do_not_differ_in_calibration() -> None:
    design = Design("equal", 1, sharpness=(1.0, 0.0), noise=0.0)
    assert Truth(design).of_arm("miscalibration", 0) == pytest.approx(0, abs=1e-9)
    counts = tally(design, 150, [3]).shares
    assert reaches(counts["cover pooled miscalibration"], LEAST)


def test_a_difference_of_the_margin_is_hardly_called_the_same_and_none_is() -> None:
    at_margin, without = (
        tally(
            Design("3000x1", 3, discordance=0.02, accuracy=0.9, effects=(0.0, effect)),
            60,
            [4],
            claims_only=True,
        ).shares["primary same"]
        for effect in (MARGIN, 0.0)
    )
    assert stays_below(at_margin, 0.05)
    assert without.value > 0.8


@pytest.mark.parametrize("of_seeds", [0.0, 5.0])
def test_three_seeds_keep_the_tail(of_seeds: float) -> None:
    """Satterthwaite's t has 23 times the nominal error rate if seeds dominate the variance."""
    rate = tail_rate(Drawn(seeds=3, of_seeds=of_seeds), [6], 20_000)
    assert rate["rate"] <= 2 + FAR * 2 * (1 / (2 * 20_000 * 0.05 / 108)) ** 0.5


def test_what_is_called_detectable_is_found_as_often() -> None:
    for drawn in (Drawn(seeds=3, of_seeds=1.0), Drawn("4x50+100x1", 1)):
        found = Share(*promise(drawn, [7], 300)["found"])
        assert 0.8 - FAR * (0.16 / 300) ** 0.5 <= found.value <= 0.85 + FAR * (0.13 / 300) ** 0.5


def test_planned_looks_together_err_as_one() -> None:
    design = GateDesign("equal 3", 5000, "correlated", 0.1, 0.02)
    planned, each = (
        over_looks(design, spent, [8], 2000)["pass"]["rate"] for spent in (True, False)
    )
    assert planned <= 0.05 + FAR * (0.05 * 0.95 / 2000) ** 0.5
    assert each > 0.08


def test_the_gate_keeps_its_errors_where_heavy_groups_fail_as_a_whole() -> None:
    random, trials = np.random.default_rng(5), 1000
    for layout in ("24x50+800x1", "10x50+300x1", "4x50+100x1"):
        for design in layouts()[layout]:
            if design.behaviour == "whole":
                for rate in errors("accuracy", design, random, trials):
                    assert rate <= 0.06 + FAR * (0.06 * 0.94 / trials) ** 0.5, design


def test_the_designs_are_heavy_indeed() -> None:
    sizes = np.array(GROUPS["heavy tail"])
    assert sizes.max() > 50
    assert np.median(sizes) == 1
    assert sizes.sum() ** 2 / (sizes**2).sum() < 20
