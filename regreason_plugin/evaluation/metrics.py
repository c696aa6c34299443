"""The metrics of a five-label task and their standard errors.

lm-eval asks a task for one item a document and metric (`document_metrics`), collects
them, and hands each metric's items to its aggregation (the functions below it). Under
``<metric>_stderr`` the same items travel a second time: that is how an aggregation of
our own fills lm-eval's standard-error cell.

Documents come in groups (one conversation, one story, one film), so every standard
error is a delete-one-group jackknife: the metric without group g, for each g. For a
mean over groups of one document it is lm-eval's own standard error; where a group's
documents fail together it is larger. It is deterministic, and none of it draws random
numbers. What is left after removing a group comes from sums by group, so the formulas
here work on all of these tables at once; the metrics themselves are scikit-learn's and
scipy's where they have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from regreason_plugin.errors import UserError

LABELS = (1, 2, 3, 4, 5)
ECE_BINS = 15
# lm-eval's own word for a standard error there is none of; its tables know no other.
NO_ERROR = "N/A"

Array: TypeAlias = npt.NDArray[np.float64]
Error: TypeAlias = float | str


def document_metrics(
    label: int, scores: Sequence[float], group: str, prefix: str = ""
) -> dict[str, Any]:
    """What one document contributes to each metric, the keys as lm-eval reports them.

    Args:
        label: The right label, 1 to 5.
        scores: The log-likelihoods of the labels 1 to 5.
        group: The document's group.
        prefix: Goes before every key.

    Raises:
        UserError: A score is not finite.
    """
    logits = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise UserError(
            f"the model scores the labels with {[float(s) for s in scores]}, which is not "
            "finite; load it with dtype=float32 or dtype=bfloat16 in --model_args"
        )
    log_probabilities = logits - np.logaddexp.reduce(logits)
    probabilities = np.exp(log_probabilities)
    prediction = int(np.argmax(probabilities)) + 1
    confidence = float(probabilities[prediction - 1])
    correct = float(prediction == label)
    means = {
        "acc": correct,
        "within_1": float(abs(prediction - label) <= 1),
        "mae": float(abs(prediction - label)),
        "nll": float(-log_probabilities[label - 1]),
        "brier": float(((probabilities - (np.array(LABELS) == label)) ** 2).sum()),
        "overconfidence": confidence - correct,
        "label_entropy": float(-(probabilities * log_probabilities).sum()),
    }
    pair = (label, prediction, group)
    whole: dict[str, Any] = {
        "macro_f1": pair,
        "qwk": pair,
        "spearman": pair,
        "ece": (confidence, correct, group),
        "majority_acc": (label, group),
    }
    items = {**means, **whole, "undefined": pair}
    errors = {name: (value, group) for name, value in means.items()} | whole
    return {prefix + name: item for name, item in items.items()} | {
        f"{prefix}{name}_stderr": item for name, item in errors.items()
    }


# --- Aggregations: from a metric's items to its value -------------------------------


def mean(items: Sequence[float]) -> float:
    """The mean over documents."""
    return float(np.mean(items))


def macro_f1(items: Sequence[tuple[int, int, str]]) -> float:
    """Unweighted mean of the five labels' F1; a label nobody gives or has counts 0."""
    from sklearn.metrics import f1_score

    labels, predictions, _ = _columns(items)
    return float(f1_score(labels, predictions, labels=LABELS, average="macro", zero_division=0.0))


def qwk(items: Sequence[tuple[int, int, str]]) -> float | None:
    """Cohen's kappa with quadratic weights; None where all labels are the same."""
    from sklearn.metrics import cohen_kappa_score

    labels, predictions, _ = _columns(items)
    if len(set(labels)) < 2:
        return None
    return float(cohen_kappa_score(labels, predictions, labels=LABELS, weights="quadratic"))


def spearman(items: Sequence[tuple[int, int, str]]) -> float | None:
    """Rank correlation of prediction and label; None where one of them is constant."""
    from scipy.stats import spearmanr

    labels, predictions, _ = _columns(items)
    if len(set(labels)) < 2 or len(set(predictions)) < 2:
        return None
    return float(spearmanr(labels, predictions).statistic)


def ece(items: Sequence[tuple[float, float, str]]) -> float:
    """Expected calibration error: |confidence - accuracy| over 15 bins of equal width."""
    return float(_ece_of_sums(_bin_sums(items).sum(axis=0)))


def majority_acc(items: Sequence[tuple[int, str]]) -> float:
    """Accuracy of always giving the most frequent label of these documents."""
    return float(_majority_of_counts(_label_counts(items).sum(axis=0)))


def undefined(items: Sequence[tuple[int, int, str]]) -> int:
    """How many of the metrics that can be undefined are, and stand as null."""
    return sum(metric(items) is None for metric in (qwk, spearman))


# --- Standard errors ----------------------------------------------------------------


def mean_stderr(items: Sequence[tuple[float, str]]) -> Error:
    """Standard error of `mean`."""
    values = np.array([[value, 1.0] for value, _ in items])
    return _jackknife(values, [group for _, group in items], lambda s: s[..., 0] / s[..., 1])


def macro_f1_stderr(items: Sequence[tuple[int, int, str]]) -> Error:
    """Standard error of `macro_f1`."""
    return _jackknife(_tables(items), _groups(items), _macro_f1_of_tables)


def qwk_stderr(items: Sequence[tuple[int, int, str]]) -> Error:
    """Standard error of `qwk`."""
    return _jackknife(_tables(items), _groups(items), _qwk_of_tables)


def spearman_stderr(items: Sequence[tuple[int, int, str]]) -> Error:
    """Standard error of `spearman`."""
    return _jackknife(_tables(items), _groups(items), _spearman_of_tables)


def ece_stderr(items: Sequence[tuple[float, float, str]]) -> Error:
    """Standard error of `ece`."""
    return _jackknife(_bin_sums(items), _groups(items), _ece_of_sums)


def majority_acc_stderr(items: Sequence[tuple[int, str]]) -> Error:
    """Standard error of `majority_acc`."""
    return _jackknife(_label_counts(items), _groups(items), _majority_of_counts)


def _jackknife(documents: Array, groups: Sequence[str], metric: Callable[[Array], Array]) -> Error:
    """Delete-one-group jackknife of a metric that is a function of sums over documents.

    Args:
        documents: One row of summands a document.
        groups: The group of each.
        metric: From summed rows (on the last axes) to values, NaN where undefined.

    Returns:
        The standard error; `NO_ERROR` with a single group, or where leaving out some
        group leaves the metric undefined.
    """
    names, member_of = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return NO_ERROR
    by_group = np.zeros((len(names), *documents.shape[1:]))
    np.add.at(by_group, member_of, documents)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = metric(by_group.sum(axis=0) - by_group)
    if not np.isfinite(without).all():
        return NO_ERROR
    spread = ((without - without.mean()) ** 2).sum()
    return float(np.sqrt((len(names) - 1) / len(names) * spread))


def _groups(items: Sequence[tuple[Any, ...]]) -> list[str]:
    return [item[-1] for item in items]


def _columns(items: Sequence[tuple[int, int, str]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(zip(*items, strict=True))


def _tables(items: Sequence[tuple[int, int, str]]) -> Array:
    """A 5 x 5 table a document with one 1, at (label, prediction)."""
    tables = np.zeros((len(items), len(LABELS), len(LABELS)))
    labels, predictions, _ = _columns(items)
    tables[np.arange(len(items)), np.array(labels) - 1, np.array(predictions) - 1] = 1.0
    return tables


def _macro_f1_of_tables(tables: Array) -> Array:
    hits = np.diagonal(tables, axis1=-2, axis2=-1)
    given_or_had = tables.sum(axis=-1) + tables.sum(axis=-2)
    f1: Array = np.where(given_or_had > 0, 2 * hits / np.maximum(given_or_had, 1), 0.0)
    return f1.mean(axis=-1)  # type: ignore[no-any-return]


def _qwk_of_tables(tables: Array) -> Array:
    labels, predictions = tables.sum(axis=-1), tables.sum(axis=-2)
    by_chance = labels[..., :, None] * predictions[..., None, :] / labels.sum(-1)[..., None, None]
    distance = np.subtract.outer(LABELS, LABELS) ** 2
    kappa = 1 - (distance * tables).sum((-2, -1)) / (distance * by_chance).sum((-2, -1))
    return np.where((labels > 0).sum(axis=-1) > 1, kappa, np.nan)


def _spearman_of_tables(tables: Array) -> Array:
    def centred_ranks(counts: Array) -> Array:
        ranks = counts.cumsum(axis=-1) - counts / 2
        mean_rank = (counts * ranks).sum(-1, keepdims=True) / counts.sum(-1, keepdims=True)
        centred: Array = ranks - mean_rank
        return centred

    labels, predictions = tables.sum(axis=-1), tables.sum(axis=-2)
    x, y = centred_ranks(labels), centred_ranks(predictions)
    covariance = (tables * x[..., :, None] * y[..., None, :]).sum((-2, -1))
    variances = (labels * x**2).sum(-1) * (predictions * y**2).sum(-1)
    correlation: Array = covariance / np.sqrt(variances)
    return correlation


def _bin_sums(items: Sequence[tuple[float, float, str]]) -> Array:
    """A document's row: in its confidence's bin, 1, the confidence, and whether it is right.

    Bins are closed on the right, so that a confidence of 1 is in the last one.
    """
    confidences = np.array([confidence for confidence, _, _ in items])
    bins = np.clip(np.ceil(confidences * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    sums = np.zeros((len(items), ECE_BINS, 3))
    sums[np.arange(len(items)), bins] = [
        (1.0, confidence, correct) for confidence, correct, _ in items
    ]
    return sums


def _ece_of_sums(sums: Array) -> Array:
    gaps: Array = np.abs(sums[..., 1] - sums[..., 2]).sum(-1) / sums[..., 0].sum(-1)
    return gaps


def _label_counts(items: Sequence[tuple[int, str]]) -> Array:
    return np.array([[float(label == one) for one in LABELS] for label, _ in items])


def _majority_of_counts(counts: Array) -> Array:
    share: Array = counts.max(axis=-1) / counts.sum(axis=-1)
    return share
