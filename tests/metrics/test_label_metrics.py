"""The metrics compared with figures by hand, other libraries and other formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, f1_score, log_loss

from regreason_plugin.core.errors import UserError
from regreason_plugin.metrics import label_metrics

VALUES = {
    "acc": label_metrics.mean,
    "within_1": label_metrics.mean,
    "mae": label_metrics.mean,
    "nll": label_metrics.mean,
    "brier": label_metrics.mean,
    "overconfidence": label_metrics.mean,
    "label_entropy": label_metrics.mean,
    "macro_f1": label_metrics.macro_f1,
    "qwk": label_metrics.qwk,
    "spearman": label_metrics.spearman,
    "ece": label_metrics.ece,
    "majority_acc": label_metrics.majority_acc,
    "undefined": label_metrics.undefined,
}
ERRORS = {
    name: label_metrics.mean_stderr
    if value is label_metrics.mean
    else getattr(label_metrics, f"{name}_stderr")
    for name, value in VALUES.items()
    if name != "undefined"
}


def aggregate(documents: list[tuple[int, list[float], str]], name: str) -> object:
    """Compute a metric over documents as lm-eval does."""
    items = [label_metrics.document_metrics(*document)[name] for document in documents]
    return (VALUES | {f"{key}_stderr": error for key, error in ERRORS.items()})[name](items)


def random_documents(
    seed: int, documents: int = 200, groups: int = 60
) -> list[tuple[int, list[float], str]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 6, documents)
    scores = rng.normal(size=(documents, 5)) * 2 - 5
    scores[np.arange(documents), labels - 1] += 1.5
    return [
        (int(label), [float(s) for s in row], f"group {rng.integers(groups)}")
        for label, row in zip(labels, scores, strict=True)
    ]


def test_keys_are_those_of_the_design() -> None:
    keys = set(label_metrics.document_metrics(3, [0.0, 1.0, 2.0, 3.0, 4.0], "g"))
    assert keys == set(VALUES) | {f"{name}_stderr" for name in ERRORS}
    prefixed = set(label_metrics.document_metrics(3, [0.0] * 5, "g", prefix="forced_"))
    assert prefixed == {f"forced_{key}" for key in keys}


def test_one_document_by_hand() -> None:
    # Probabilities 1/2, 1/4, 1/8, 1/16, 1/16 after normalising; the true label is 2.
    scores = [math.log(p) for p in (0.4, 0.2, 0.1, 0.05, 0.05)]
    found = label_metrics.document_metrics(2, scores, "g")
    assert found["acc"] == 0.0
    assert found["within_1"] == 1.0
    assert found["mae"] == 1.0
    assert found["nll"] == pytest.approx(math.log(4))
    assert found["brier"] == pytest.approx(1 / 4 + 9 / 16 + 1 / 64 + 2 / 256)
    assert found["overconfidence"] == pytest.approx(0.5)
    assert found["label_entropy"] == pytest.approx(
        math.log(2) / 2 + math.log(4) / 4 + math.log(8) / 8 + math.log(16) / 8
    )
    assert found["qwk"] == (2, 1, "g")


def test_ece_by_hand() -> None:
    # Two documents in the bin (0.6, 0.667], one of them correct; one correct in the last bin.
    items = [(0.62, 1.0, "a"), (0.66, 0.0, "b"), (1.0, 1.0, "c")]
    assert label_metrics.ece(items) == pytest.approx(2 / 3 * abs(0.64 - 0.5) + 0.0)
    # The upper edge of a bin belongs to it.
    assert label_metrics.ece([(3 / 15, 0.0, "a"), (3 / 15 + 1e-9, 1.0, "b")]) == pytest.approx(
        (3 / 15 + 1 - 3 / 15) / 2
    )


def test_values_against_scikit_learn_and_scipy() -> None:
    documents = random_documents(0)
    labels = [label for label, _, _ in documents]
    probabilities = softmax(np.array([scores for _, scores, _ in documents]), axis=1)
    predictions = probabilities.argmax(axis=1) + 1
    expected = {
        "acc": np.mean(predictions == labels),
        "macro_f1": f1_score(labels, predictions, average="macro"),
        "qwk": cohen_kappa_score(labels, predictions, weights="quadratic"),
        "mae": np.mean(np.abs(predictions - labels)),
        "spearman": spearmanr(predictions, labels).statistic,
        "within_1": np.mean(np.abs(predictions - labels) < 2),
        "nll": log_loss(labels, probabilities),
        "brier": np.mean(((probabilities - np.eye(5)[np.array(labels) - 1]) ** 2).sum(axis=1)),
        "overconfidence": probabilities.max(axis=1).mean() - np.mean(predictions == labels),
        "majority_acc": np.bincount(labels).max() / len(labels),
        "label_entropy": -(probabilities * np.log(probabilities)).sum(axis=1).mean(),
        "undefined": 0,
    }
    for name, value in expected.items():
        assert aggregate(documents, name) == pytest.approx(value), name


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_equal_a_jackknife_of_the_metric_itself(name: str) -> None:
    # With 200 documents in 60 groups, the vectorised formulas must equal computing the metric 60
    # times, each time without one group.
    documents = random_documents(1)
    groups = sorted({group for _, _, group in documents})
    without = np.array(
        [
            aggregate([document for document in documents if document[2] != group], name)
            for group in groups
        ],
        dtype=float,
    )
    count = len(groups)
    expected = math.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    assert aggregate(documents, f"{name}_stderr") == pytest.approx(expected, rel=1e-9)


def test_error_of_a_mean_with_groups_of_one_is_the_usual_one() -> None:
    documents = [
        (label, scores, f"{n}") for n, (label, scores, _) in enumerate(random_documents(2))
    ]
    accuracies = [label_metrics.document_metrics(*document)["acc"] for document in documents]
    expected = np.std(accuracies, ddof=1) / math.sqrt(len(accuracies))
    assert aggregate(documents, "acc_stderr") == pytest.approx(expected)


def test_documents_that_fail_together_widen_the_error() -> None:
    documents = random_documents(3, documents=100)
    alone = [(label, scores, f"{n}") for n, (label, scores, _) in enumerate(documents)]
    # Four copies of every document in its group add no information.
    fourfold = [document for document in alone for _ in range(4)]
    for name in ("acc", "nll", "qwk", "macro_f1", "spearman", "ece"):
        once = aggregate(alone, f"{name}_stderr")
        assert aggregate(fourfold, f"{name}_stderr") == pytest.approx(once), name


def test_error_covers_the_truth() -> None:
    # Each group is correct or wrong as a whole; the true accuracy is 0.6.
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        items = [
            (float(right), f"{group}")
            for group, right in enumerate(rng.random(80) < 0.6)
            for _ in range(3)
        ]
        estimate = label_metrics.mean([value for value, _ in items])
        error = label_metrics.mean_stderr(items)
        assert isinstance(error, float)
        covered += abs(estimate - 0.6) < 1.96 * error
    assert 0.92 < covered / 400 < 0.98


def pairs(labels: list[int], predictions: list[int]) -> list[tuple[int, int, str]]:
    return [
        (label, prediction, f"{n}")
        for n, (label, prediction) in enumerate(zip(labels, predictions, strict=True))
    ]


def test_undefined_is_none_and_counted() -> None:
    one_class = pairs([3, 3, 3], [1, 3, 5])
    assert label_metrics.qwk(one_class) is None
    assert label_metrics.spearman(one_class) is None
    assert label_metrics.undefined(one_class) == 2
    constant = pairs([1, 3, 5], [2, 2, 2])
    assert label_metrics.qwk(constant) == pytest.approx(0.0)
    assert label_metrics.spearman(constant) is None
    assert label_metrics.undefined(constant) == 1
    assert label_metrics.macro_f1(constant) == 0.0
    for items in (one_class, constant):
        assert label_metrics.spearman_stderr(items) == "N/A"
    assert label_metrics.qwk_stderr(one_class) == "N/A"


def test_no_error_from_one_group_or_where_a_group_decides() -> None:
    assert label_metrics.mean_stderr([(1.0, "a"), (0.0, "a")]) == "N/A"
    # Without group 2, all labels are the same.
    assert label_metrics.qwk_stderr(pairs([3, 3, 3, 4], [1, 3, 5, 4])) == "N/A"


def test_a_score_that_is_no_number_is_refused() -> None:
    for bad in (float("nan"), float("-inf")):
        with pytest.raises(UserError, match="not finite"):
            label_metrics.document_metrics(1, [0.0, bad, 0.0, 0.0, 0.0], "g")


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 5),
            st.lists(st.floats(-80, 0), min_size=5, max_size=5),
            st.sampled_from("abcdef"),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_never_nan(documents: list[tuple[int, list[float], str]]) -> None:
    for name in VALUES:
        value = aggregate(documents, name)
        assert value is None or math.isfinite(value), name  # type: ignore[arg-type]
    for name in ERRORS:
        error = aggregate(documents, f"{name}_stderr")
        assert error == "N/A" or math.isfinite(error), name  # type: ignore[arg-type]
