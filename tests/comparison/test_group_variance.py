"""CR2 variances and their degrees of freedom: by matrices over documents, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import sqrtm

from regreason_plugin.comparison.group_variance import GroupWeights

Array = NDArray[np.float64]

SIZES = {
    "equal": [4] * 9,
    "of one": [1] * 12,
    "unequal": [1, 2, 3, 8, 20],
    "a few heavy": [12] * 3 + [1] * 25,
}
FEW_HEAVY = np.array([50.0] * 4 + [1.0] * 100)


def contributions_of(values: Array, member: NDArray[np.int64]) -> tuple[Array, Array]:
    """The groups' contributions to a plain mean, and their documents' squared contributions."""
    deviations = (values - values.mean()) / len(values)
    return np.bincount(member, deviations), np.bincount(member, deviations**2)


def adjustment(member: NDArray[np.int64]) -> Array:
    """CR2 of an intercept: the rows A_g (I - H)_g of all groups, ``[documents, documents]``.

    Bell and McCaffrey 2002: A_g = (I - H_gg)^(-1/2), where H is the hat matrix, here of equal
    entries; their estimate is the sum over groups of (1' A_g e_g / N)^2.
    """
    count = len(member)
    residual = np.eye(count) - np.full((count, count), 1 / count)
    rows = np.zeros_like(residual)
    for group in np.unique(member):
        at = np.flatnonzero(member == group)
        root = np.linalg.inv(np.real(sqrtm(residual[np.ix_(at, at)])))
        rows[at] = root @ residual[at]
    return rows


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_variance_is_bell_and_mccaffreys(sizes: list[int]) -> None:
    member = np.repeat(np.arange(len(sizes)), sizes)
    values = np.random.default_rng(1).normal(3, 2, len(member))
    weights = GroupWeights.of_sizes(np.array(sizes, dtype=float))
    by_group = np.bincount(member, adjustment(member) @ values) / len(member)
    found = weights.variance(contributions_of(values, member)[0])
    assert found == pytest.approx((by_group**2).sum())


def test_equal_groups_are_statsmodels_with_its_own_correction() -> None:
    member = np.repeat(np.arange(9), 4)
    values = (
        np.random.default_rng(2).normal(3, 2, 36) + np.random.default_rng(3).normal(size=9)[member]
    )
    weights = GroupWeights.of_sizes(np.full(9, 4.0))
    found = weights.variance(contributions_of(values, member)[0])
    # CR2 is G / (G - 1) times the plain sum of squares, which is CR0.
    fit = sm.OLS(values, np.ones(36)).fit(cov_type="cluster", cov_kwds={"groups": member})
    assert found == pytest.approx(fit.cov_params()[0, 0])
    # Unequal groups differ from it: a heavy group counts for more.
    member = np.repeat(np.arange(5), SIZES["unequal"])
    values = np.random.default_rng(2).normal(size=len(member))
    kinds = {"groups": member, "use_correction": False}
    plain = sm.OLS(values, np.ones(len(member))).fit(cov_type="cluster", cov_kwds=kinds)
    weights = GroupWeights.of_sizes(np.bincount(member).astype(float))
    contributions, _ = contributions_of(values, member)
    assert plain.cov_params()[0, 0] == pytest.approx((contributions**2).sum())
    most = 1 / (1 - weights.shares.max())
    assert 1 < weights.variance(contributions) / plain.cov_params()[0, 0] <= most


@pytest.mark.parametrize("alike", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_degrees_of_freedom_are_the_traces(sizes: list[int], alike: float) -> None:
    """Traces of the variance's quadratic form over documents (Imbens and Kolesar)."""
    member = np.repeat(np.arange(len(sizes)), sizes)
    count = len(member)
    # Column g: the weight of every document in group g's scaled contribution.
    columns = np.stack(
        [adjustment(member)[member == group].sum(axis=0) / count for group in range(len(sizes))], 1
    )
    covariance = np.where(member[:, None] == member, alike, 0.0)
    np.fill_diagonal(covariance, 1.0)
    of_groups = columns.T @ covariance @ columns
    expected = np.trace(of_groups) ** 2 / np.trace(of_groups @ of_groups)
    weights = GroupWeights.of_sizes(np.array(sizes, dtype=float))
    assert weights.degrees_of_freedom(alike) == pytest.approx(expected)
    if len(set(sizes)) == 1:
        assert expected == pytest.approx(len(sizes) - 1)


def test_a_mean_over_tasks_weighs_documents_unequally() -> None:
    """Tasks of 4 and 12 documents; group 0 is in both, and one group in neither."""
    member = np.repeat([0, 1, 0, 2, 3], [2, 2, 6, 3, 3])
    weight = np.repeat([1 / 8, 1 / 24], [4, 12])
    weights = GroupWeights(
        np.bincount(member, weight, 5), np.bincount(member, weight**2, minlength=5)
    )
    assert weights.shares == pytest.approx([0.5, 0.25, 0.125, 0.125, 0])
    assert weights.effective_groups == pytest.approx(1 / (0.25 + 0.0625 + 2 * 0.015625))
    assert weights.effective_documents == pytest.approx(1 / (4 / 64 + 12 / 576))
    values = np.random.default_rng(4).normal(size=16)
    contributions = np.bincount(member, weight * (values - weight @ values), 5)
    h = weights.shares
    # The contributions are (I - h 1') totals.
    leaving = np.eye(5) - np.outer(h, np.ones(5))
    totals = np.bincount(member, weight * values, 5)
    assert contributions == pytest.approx(leaving @ totals)
    expected = (contributions**2 / (1 - h)).sum()
    assert weights.variance(np.stack([contributions, 3 * contributions])) == pytest.approx(
        [expected, 9 * expected]
    )
    for alike in (0.0, 0.4, 1.0):
        own = np.array([weight[member == group] for group in range(5)], dtype=object)
        variances = [(1 - alike) * (w**2).sum() + alike * w.sum() ** 2 for w in own]
        scaled = np.diag((1 - h) ** -0.5) @ leaving
        matrix = scaled @ np.diag(variances) @ scaled.T
        expected_df = np.trace(matrix) ** 2 / np.trace(matrix @ matrix)
        assert weights.degrees_of_freedom(alike) == pytest.approx(expected_df)


def test_effective_numbers_by_hand() -> None:
    heavy = GroupWeights.of_sizes(FEW_HEAVY)
    # 300 documents: 4 * 2500 + 100 * 1 = 10,100 is the sum of the squared sizes.
    assert heavy.effective_groups == pytest.approx(90_000 / 10_100)
    assert heavy.mean_group_size == pytest.approx(10_100 / 300)
    assert heavy.effective_documents == pytest.approx(300)
    assert heavy.sizes == pytest.approx(FEW_HEAVY)
    equal = GroupWeights.of_sizes(np.full(7, 3.0))
    assert equal.effective_groups == pytest.approx(7)
    assert equal.mean_group_size == pytest.approx(3)


def anova(values: Array, groups: int) -> float:
    """The intra-class correlation of equal groups, from mean squares (Searle and others 1992)."""
    table = values.reshape(groups, -1)
    size = table.shape[1]
    between = size * table.mean(axis=1).var(ddof=1)
    within = table.var(axis=1, ddof=1).mean()
    return float((between - within) / (between + (size - 1) * within))


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.8])
def test_alikeness_is_the_anova_estimate_and_finds_the_truth(alike: float) -> None:
    random = np.random.default_rng(5)
    member = np.repeat(np.arange(60), 5)
    weights = GroupWeights.of_sizes(np.full(60, 5.0))
    uneven = np.repeat(np.arange(60), random.permutation(np.arange(60) % 6 + 1))
    of_uneven = GroupWeights.of_sizes(np.bincount(uneven).astype(float))
    seen, seen_uneven = [], []
    for _ in range(300):
        one, other = (
            alike**0.5 * random.normal(size=60)[of]
            + (1 - alike) ** 0.5 * random.normal(size=len(of))
            for of in (member, uneven)
        )
        seen.append(weights.intragroup_correlation(*contributions_of(one, member)))
        # The two estimates divide by G and by G - 1.
        assert seen[-1] == pytest.approx(max(anova(one, 60), 0), abs=2 / 60)
        seen_uneven.append(of_uneven.intragroup_correlation(*contributions_of(other, uneven)))
    # Negative estimates count as 0, which raises their mean if the true value is 0.
    for found in (seen, seen_uneven):
        assert np.mean(found) == pytest.approx(alike, abs=0.03)


def test_alikeness_by_hand() -> None:
    """Two groups of two documents and one of one; the mean is 0."""
    weights = GroupWeights.of_sizes(np.array([2.0, 2.0, 1.0]))
    member = np.array([0, 0, 1, 1, 2])
    found = contributions_of(np.array([1.0, 1.0, -1.0, -1.0, 0.0]), member)
    assert weights.intragroup_correlation(*found) == pytest.approx(1)
    found = contributions_of(np.array([1.0, -1.0, 2.0, -2.0, 0.0]), member)
    assert weights.intragroup_correlation(*found) == 0
    # Twice the pairs' products: 2 * (3 * 1 + (-2) * (-2)) = 14; squares: 3^2 + 1 + 4 + 4 = 18.
    found = contributions_of(np.array([3.0, 1.0, -2.0, -2.0, 0.0]), member)
    assert weights.intragroup_correlation(*found) == pytest.approx(14 / 18)
    # An unobserved event that moves a document and its neighbour by 1: one pair, and a tenth of
    # the two pairs of the whole group.
    event = 1 / 25
    # 18 such events of 5 documents: each of the two groups of two has had its event.
    assert weights.intragroup_correlation(*found, unseen=event) == pytest.approx(
        (14 + 1) / (18 + 1)
    )
    # 1.8 events of 5 documents: a group has none with probability 0.64, both with 0.64 squared.
    pairs = 10 * (1 + 0.2 * 0.64**2)
    larger = weights.intragroup_correlation(*found, unseen=10 * event)
    assert larger == pytest.approx((14 + pairs) / (18 + pairs))
    nothing = np.zeros(3)
    assert weights.intragroup_correlation(nothing, nothing) == 1
    assert weights.intragroup_correlation(nothing, nothing, unseen=event) == 1
    alone = GroupWeights.of_sizes(np.ones(4))
    assert (
        alone.intragroup_correlation(np.array([1.0, -1.0, 2.0, -2.0]), np.array([1.0, 1, 4, 4]))
        == 1
    )


def test_a_few_heavy_groups_are_covered_and_by_the_number_of_groups_are_not() -> None:
    """Fully correlated groups: 104 groups, four of which carry two thirds of the weight."""
    random, trials = np.random.default_rng(6), 4000
    weights = GroupWeights.of_sizes(FEW_HEAVY)
    by_group = random.normal(size=(trials, 104))
    means = by_group @ weights.shares
    contributions = weights.shares * (by_group - means[:, None])
    squares = weights.sizes * (by_group - means[:, None]) ** 2 / 300**2
    alike = [
        weights.intragroup_correlation(*each) for each in zip(contributions, squares, strict=True)
    ]
    df = np.array([weights.degrees_of_freedom(one) for one in alike])
    away = np.abs(means) / np.sqrt(weights.variance(contributions))
    covered = (away <= stats.t.isf(0.025, df)).mean()
    assert 0.93 <= covered <= 0.98
    assert (away <= stats.t.isf(0.025, 103)).mean() < 0.91
    plain = np.sqrt((contributions**2).sum(axis=1) * 104 / 103)
    assert (np.abs(means) / plain <= stats.t.isf(0.025, 103)).mean() < 0.88
