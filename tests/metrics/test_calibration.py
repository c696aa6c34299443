"""Miscalibration against other formulas, pair by pair, and on models whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import t as student

from regreason_plugin.metrics.calibration import ECE_BINS, bins_of, miscalibration
from regreason_plugin.metrics.count_formulas import table_of
from regreason_plugin.metrics.influence import Statistic

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
HEAVY = np.repeat(np.arange(104), [50] * 4 + [1] * 100)


def of_documents(confidences: Array, correct: Array, member: Integers) -> Statistic:
    names, member = np.unique(member, return_inverse=True)
    shape, bins = (len(names), ECE_BINS), bins_of(confidences)
    gaps = table_of(member, bins, shape, confidences - correct)
    return miscalibration(gaps, table_of(member, bins, shape))


def by_pairs(confidences: Array, correct: Array, member: Integers) -> float:
    """A double loop over the documents of each bin; NaN where no pair is of different groups."""
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
    """By how much the variance of no true gap, summed over pairs of groups, is above theirs."""
    names, count = np.unique(member), len(member)
    variance = (influence**2).sum() / max(len(names) * (len(names) - 1), 1)
    bins, gaps = bins_of(confidences), confidences - correct
    least = 0.0
    for one in names:
        for other in names[names != one]:
            adds = 0.0
            for which in set(bins):
                inside = bins == which
                of_group = [int((inside & (member == name)).sum()) for name in names]
                pairs = sum(of_group) ** 2 - sum(n**2 for n in of_group)
                if pairs:
                    sums = [gaps[inside & (member == name)].sum() for name in (one, other)]
                    adds += sum(of_group) / count / pairs * sums[0] * sums[1]
            least += 2 * adds**2
    return math.sqrt(least / variance) if 0 < variance < least else 1.0


def test_groups_of_one_give_the_debiased_estimate_of_the_literature() -> None:
    # Kumar, Liang and Ma (2019), definition 4.3, and Ferro and Fricker (2012), equation 9: one
    # confidence a bin; the variance of each bin's accuracy is taken off its squared gap.
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


def test_undefined_where_no_bin_holds_two_groups() -> None:
    found = of_documents(np.array([0.3, 0.31, 0.9]), np.array([0.0, 1.0, 1.0]), np.array([0, 0, 1]))
    assert np.isnan(found.values).all()
    # Of two groups in one bin neither can be left out.
    found = of_documents(np.array([0.3, 0.31]), np.array([0.0, 1.0]), np.array([0, 1]))
    assert found.values == pytest.approx(np.array([0.3 * (0.31 - 1)]))
    assert np.isnan(found.influence).all()


def answers(
    random: np.random.Generator, kind: str, member: Integers, over: float, alike: bool
) -> tuple[Array, Array]:
    """Confidences, and what is right with a probability of so much less than them.

    Documents of a group depend on each other; where they are alike, they are all the same.
    """
    of_group = random.normal(size=(2, member.max() + 1))[:, member]
    own = random.normal(size=(2, len(member)))
    share = 1.0 if alike else 0.3
    where, luck = ndtr(np.sqrt(share) * of_group + np.sqrt(1 - share) * own)
    confidences = {
        "sharp": 1 - 0.4 * where**4,
        "dull": 0.25 + 0.2 * where,
        "of one bin": 0.54 + 0.05 * where,
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
    # Of a bin with a single group nothing is known: its gap is taken for none.
    assert abs(np.mean(values) - over**2) < 4 * error + 0.02 * over**2


@pytest.mark.parametrize(
    ("kinds", "member"),
    [
        (("sharp", "dull"), np.arange(60)),
        (("sharp", "of one bin"), np.arange(60) // 3),
        (("dull", "of one bin"), HEAVY),
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
