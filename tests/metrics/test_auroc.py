"""The area under the ROC curve and its jackknife, compared with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from regreason_plugin.metrics.answers import Answers
from regreason_plugin.metrics.auroc import area_of
from regreason_plugin.metrics.group_sums import statistics_of
from regreason_plugin.metrics.influence import jackknife_influence

Array = NDArray[np.float64]


def area(labels: Array, scores: Array) -> float:
    """scikit-learn's area; NaN if a label is missing."""
    if len({*labels.tolist()}) < 2:
        return np.nan
    return float(roc_auc_score(labels == 2, scores))


documents = st.lists(
    # Only few different scores, so that many are equal.
    st.tuples(st.integers(1, 2), st.integers(-3, 3), st.integers(0, 4)),
    min_size=1,
    max_size=30,
)


@given(documents)
def test_value_and_jackknife_are_scikit_learns(
    drawn: list[tuple[int, int, int]],
) -> None:
    labels, scores, groups = (np.array(column) for column in zip(*drawn, strict=True))
    names, member = np.unique(groups, return_inverse=True)
    found = area_of(labels, scores.astype(float), member, len(names))
    assert found.value == pytest.approx(area(labels, scores), nan_ok=True)
    without = [area(labels[groups != name], scores[groups != name]) for name in names]
    assert found.without == pytest.approx(np.array(without), nan_ok=True)


def test_the_standard_error_of_a_difference_is_delongs() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(1, 3, 400)
    truth = labels + random.normal(0, 1, 400)
    scores = [truth + random.normal(0, noise, 400) for noise in (0.5, 1.5)]
    influences = []
    for one in scores:
        found = area_of(labels, one, np.arange(400), 400)
        influences.append(jackknife_influence(np.array([found.value]), found.without[None])[0])
    difference = influences[0] - influences[1]
    se = np.sqrt((difference**2).sum() / (400 * 399))
    # DeLong, DeLong and Clarke-Pearson (1988), equations 4 to 6, pair by pair.
    second, first = ([one[labels == label] for one in scores] for label in (2, 1))
    wins = [
        (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)
        for x, y in zip(second, first, strict=True)
    ]
    components = [wins[0].mean(axis=axis) - wins[1].mean(axis=axis) for axis in (1, 0)]
    delong = np.sqrt(sum(one.var(ddof=1) / len(one) for one in components))
    assert se == pytest.approx(delong, rel=0.01)


def test_probabilities_that_round_to_one_are_no_ties() -> None:
    labels, scores = np.array([1, 2, 2]), np.array([40.0, 50.0, 60.0])
    logs = log_softmax(np.stack([np.zeros(3), scores], axis=1), axis=1)
    assert (np.exp(logs[:, 1]) == 1).all()
    answers = Answers(
        task="answers",
        source=Path("samples.jsonl"),
        ids=list("abc"),
        hashes=list("abc"),
        groups=list("abc"),
        labels=labels,
        log_probabilities=logs,
        probes={},
        layers={},
        ordinal=False,
    )
    assert statistics_of([answers])["auroc"].values == 1
