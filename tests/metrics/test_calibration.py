"""Calibration compared with other formulas, pair by pair, and on models with known truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import t as student

from regreason_plugin.metrics.calibration import (
    ECE_BINS,
    bins_of,
    calibrated_band,
    design_effect,
    ece_of_sums,
    expected_ece,
    miscalibration,
)
from regreason_plugin.metrics.influence import Statistic

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
HEAVY = np.repeat(np.arange(104), [50] * 4 + [1] * 100)


def of_documents(confidences: Array, correct: Array, member: Integers) -> Statistic:
    """`miscalibration` without the factor for percent."""
    place = np.unique(member, return_inverse=True)[1]
    values, influence = miscalibration(confidences, correct.astype(float), place)
    return Statistic(values / 100, influence / 100)


def by_pairs(confidences: Array, correct: Array, member: Integers) -> float:
    """The same value by a double loop over each bin; NaN if no pair has different groups."""
    count, value, any_pair = len(confidences), 0.0, False
    bins = [max(math.ceil(one * 15), 1) for one in confidences]
    for which in set(bins):
        inside = [place for place in range(count) if bins[place] == which]
        products = [
            (confidences[i] - correct[i]) * (confidences[j] - correct[j])
            for i in inside
            for j in inside
            if member[i] != member[j]
        ]
        if products:
            any_pair = True
            value += len(inside) / count * sum(products) / len(products)
    return value if any_pair else math.nan


documents = st.lists(
    st.tuples(
        st.sampled_from([0.31, 0.32, 0.66, 2 / 3, 0.97, 1.0]), st.booleans(), st.integers(0, 5)
    ),
    min_size=1,
    max_size=25,
)


# Nine of 25 correct at a confidence of a third, or all at 0.97: the influences are scaled up.
@example([(0.32, place % 11 in (0, 3, 4, 6), place // 2) for place in range(25)])
@example([(0.96 + 0.01 * (place % 3), True, place // 2) for place in range(25)])
@given(documents)
def test_value_and_jackknife_are_those_of_pairs_of_documents(
    drawn: list[tuple[float, bool, int]],
) -> None:
    confidences, correct, member = (np.array(column) for column in zip(*drawn, strict=True))
    found = of_documents(confidences, correct, member)
    value = by_pairs(confidences, correct, member)
    assert found.values == pytest.approx(np.array([value]), nan_ok=True, abs=1e-12)
    names = np.unique(member)
    without = np.array(
        [
            by_pairs(confidences[keep], correct[keep], member[keep])
            for keep in names[:, None] != member
        ]
    )
    expected = (len(names) - 1) * (without.mean() - without)
    scale = raised(confidences, correct, member, expected)
    assert found.influence[0] == pytest.approx(expected * scale, nan_ok=True, abs=1e-9)


def raised(confidences: Array, correct: Array, member: Integers, influence: Array) -> float:
    """The factor by which influences are scaled up, from a sum over pairs of documents."""
    names, count = np.unique(member), len(member)
    variance = (influence**2).sum() / max(len(names) * (len(names) - 1), 1)
    bins, least = bins_of(confidences), 0.0
    for which in set(bins):
        inside = np.flatnonzero(bins == which)
        apart = [(i, j) for i in inside for j in inside if member[i] != member[j]]
        chance = confidences * (1 - confidences)
        if apart:
            weight = len(inside) / count / len(apart)
            least += 2 * weight**2 * sum(chance[i] * chance[j] for i, j in apart)
    least *= design_effect(confidences - correct, bins, member) ** 2
    return math.sqrt(least / variance) if 1e-12 * least < variance < least else 1.0


def test_groups_of_one_give_the_debiased_estimate_of_the_literature() -> None:
    # Kumar, Liang and Ma (2019), definition 4.3, and Ferro and Fricker (2012), equation 9, with
    # one confidence per bin: the squared gap of each bin minus the variance of its accuracy.
    random = np.random.default_rng(0)
    confidences = random.choice([0.3, 0.5, 0.7, 0.9], 200)
    correct = (random.random(200) < confidences - 0.1).astype(float)
    expected = 0.0
    for level in np.unique(confidences):
        right = correct[confidences == level]
        noise = right.mean() * (1 - right.mean()) / (len(right) - 1)
        expected += len(right) / 200 * ((level - right.mean()) ** 2 - noise)
    found = of_documents(confidences, correct, np.arange(200))
    assert found.values[0] == pytest.approx(expected)


def test_ten_points_everywhere_are_one_percent() -> None:
    confidences, correct = np.array([0.35] * 4 + [0.6] * 4), np.array([0, 0, 0, 1, 0, 0, 1, 1])
    # Each group has every bin's accuracy, so there is no variance to subtract.
    member = np.repeat([0, 1, 2], 8)
    found = miscalibration(np.tile(confidences, 3), np.tile(correct, 3).astype(float), member)
    assert found.values == pytest.approx(np.ones(1))


def test_undefined_where_no_bin_holds_two_groups() -> None:
    found = of_documents(np.array([0.3, 0.31, 0.9]), np.array([0.0, 1.0, 1.0]), np.array([0, 0, 1]))
    assert np.isnan(found.values).all()
    # With two groups in one bin, neither can be left out.
    found = of_documents(np.array([0.3, 0.31]), np.array([0.0, 1.0]), np.array([0, 1]))
    assert found.values == pytest.approx(np.array([0.3 * (0.31 - 1)]))
    assert np.isnan(found.influence).all()


def answers(
    random: np.random.Generator, kind: str, member: Integers, over: float, alike: bool
) -> tuple[Array, Array]:
    """Confidences, and answers whose probability of being correct is lower by ``over``.

    Documents of a group are correlated; with ``alike`` they are all equal.
    """
    of_group = random.normal(size=(2, member.max() + 1))[:, member]
    own = random.normal(size=(2, len(member)))
    share = 1.0 if alike else 0.3
    where, luck = ndtr(np.sqrt(share) * of_group + np.sqrt(1 - share) * own)
    confidences = {
        "sharp": 1 - 0.4 * where**4,
        "dull": 0.25 + 0.2 * where,
        "of one bin": 0.54 + 0.05 * where,
        "sure": 0.955 + 0.03 * where,
        "surer": 0.99 + 0.0099 * where,
    }[kind]
    return confidences, (luck < confidences - over).astype(float)


@pytest.mark.parametrize("over", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["sharp", "dull"])
@pytest.mark.parametrize(
    "member",
    [np.arange(60), np.arange(300), np.arange(300) // 3, HEAVY],
    ids=["60", "300", "100 groups of 3", "4 groups of 50 and 100 of one"],
)
def test_it_is_unbiased(member: Integers, kind: str, over: float) -> None:
    random = np.random.default_rng(1)
    alike = member.max() < 100
    values = [
        of_documents(*answers(random, kind, member, over, alike), member).values[0]
        for _ in range(1000)
    ]
    error = np.std(values) / len(values) ** 0.5
    # A bin with a single group gives no information, so its gap counts as zero.
    assert abs(np.mean(values) - over**2) < 4 * error + 0.02 * over**2


@pytest.mark.parametrize(
    ("kinds", "member"),
    [
        (("sharp", "dull"), np.arange(60)),
        (("sharp", "of one bin"), np.arange(60) // 3),
        (("dull", "of one bin"), HEAVY),
        (("surer", "sure"), np.arange(60)),
        (("surer", "sure"), np.arange(60) // 3),
    ],
)
def test_two_calibrated_models_are_rarely_told_apart(
    kinds: tuple[str, str], member: Integers
) -> None:
    random = np.random.default_rng(2)
    groups, claims = int(member.max()) + 1, 0
    for _ in range(500):
        one, two = (
            of_documents(*answers(random, kind, member, 0, len(member) == 60), member)
            for kind in kinds
        )
        influence = one.influence - two.influence
        error = math.sqrt((influence**2).sum() / (groups * (groups - 1)))
        claims += abs(one.values[0] - two.values[0]) > student.ppf(0.975, groups - 1) * error
    assert claims / 500 < 0.03


def test_the_interval_holds_a_true_gap() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(500):
        found = of_documents(*answers(random, "dull", np.arange(300), 0.15, False), np.arange(300))
        error = math.sqrt((found.influence**2).sum() / (300 * 299))
        held += abs(found.values[0] - 0.15**2) < student.ppf(0.975, 299) * error
    assert 0.925 < held / 500 < 0.98


# --- what a calibrated model shows -----------------------------------------------------------


def sums_by_bin(confidences: Array, correct: Array) -> Array:
    bins = bins_of(confidences)
    each = (np.ones(len(bins)), confidences, correct)
    return np.stack([np.bincount(bins, of, ECE_BINS) for of in each], axis=1)


def test_expected_ece_is_the_mean_over_all_outcomes() -> None:
    # Ten documents in two bins: the sum over all 1024 outcomes, weighted by their probabilities.
    confidences = np.array([0.47, 0.48, 0.5, 0.51, 0.52, 0.53, 0.94, 0.96, 0.98, 0.99])
    outcomes = np.array(list(itertools.product([0.0, 1.0], repeat=10)))
    chance = np.where(outcomes == 1, confidences, 1 - confidences).prod(axis=1)
    errors = [ece_of_sums(sums_by_bin(confidences, outcome)) for outcome in outcomes]
    found = expected_ece(sums_by_bin(confidences, outcomes[0])[None], np.ones(1))
    assert found[0] == pytest.approx(chance @ errors, rel=0.005)
    # With one confidence per bin, the formula is exact.
    confidences = np.array([0.5] * 7 + [0.95] * 3)
    chance = np.where(outcomes == 1, confidences, 1 - confidences).prod(axis=1)
    errors = [ece_of_sums(sums_by_bin(confidences, outcome)) for outcome in outcomes]
    found = expected_ece(sums_by_bin(confidences, outcomes[0])[None], np.ones(1))
    assert found[0] == pytest.approx(chance @ errors, rel=1e-12)


def test_expected_ece_of_certain_answers_is_nothing() -> None:
    certain = sums_by_bin(np.ones(5), np.ones(5))
    assert expected_ece(certain[None], np.ones(1)) == pytest.approx(np.zeros(1))


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("kind", ["sharp", "dull"])
def test_calibrated_models_have_the_expected_ece(kind: str, alike: bool) -> None:
    random = np.random.default_rng(5)
    member = np.arange(300) // 3
    found, expected = [], []
    for _ in range(400):
        confidences, correct = answers(random, kind, member, 0, alike)
        effect = design_effect(confidences - correct, bins_of(confidences), member)
        sums = sums_by_bin(confidences, correct)
        found.append(ece_of_sums(sums))
        expected.append(expected_ece(sums[None], np.array([effect]))[0])
    error = np.std(found) / 400**0.5
    assert abs(np.mean(found) - np.mean(expected)) < 4 * error + 0.03 * np.mean(found)


def test_design_effect_of_copies_and_of_independent_documents() -> None:
    random = np.random.default_rng(6)
    gaps, bins = random.normal(size=90), np.zeros(90, dtype=np.int64)
    assert design_effect(gaps, bins, np.arange(90)) == pytest.approx(1)
    # With four copies of each document, the sums of squares give (4 x 90 - 1) / (90 - 1).
    copies = design_effect(np.repeat(gaps, 4), np.repeat(bins, 4), np.repeat(np.arange(90), 4))
    assert copies == pytest.approx(359 / 89)
    assert design_effect(gaps, bins, np.zeros(90, dtype=np.int64)) == 1
    assert design_effect(np.zeros(3), np.arange(3), np.arange(3)) == 1


def test_design_effect_is_that_of_the_intraclass_correlation() -> None:
    # 1 + (5 - 1) x 0.3 = 2.2, for groups of five documents, each group in one bin.
    random = np.random.default_rng(7)
    member = np.repeat(np.arange(4000), 5)
    shared = random.normal(size=4000)[member]
    gaps = np.sqrt(0.3) * shared + np.sqrt(0.7) * random.normal(size=20_000)
    assert design_effect(gaps, member % ECE_BINS, member) == pytest.approx(2.2, rel=0.05)


def test_the_band_leaves_two_and_a_half_percent_at_either_side() -> None:
    confidences = np.concatenate([np.full(40, 0.5), np.full(13, 0.9), np.full(1, 0.3)])
    sums = sums_by_bin(confidences, np.zeros(54))
    for effect in (1.0, 3.0):
        low, high = calibrated_band(sums, effect)
        for p, count in ((0.5, 40), (0.9, 13), (0.3, 1)):
            n = max(round(count / effect), 1)
            place = bins_of(np.array([p]))[0]
            chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
            ends = [
                min(k for k in range(n + 1) if sum(chances[: k + 1]) >= tail) / n
                for tail in (0.025, 0.975)
            ]
            assert [low[place], high[place]] == pytest.approx(ends)
