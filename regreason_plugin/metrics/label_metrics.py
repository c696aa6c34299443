"""The metrics of a task and their standard errors.

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

from regreason_plugin.core.declaration import Normalise
from regreason_plugin.core.errors import UserError
from regreason_plugin.metrics.answers import Array
from regreason_plugin.metrics.auroc import area_of
from regreason_plugin.metrics.calibration import ECE_BINS, bins_of, ece_of_sums
from regreason_plugin.metrics.count_formulas import (
    entropy,
    log_probabilities,
    macro_f1_of_tables,
    majority_of_counts,
    qwk_of_tables,
    spearman_of_tables,
)

# Labels of a task that says nothing else.
FIVE = 5
# These ask for an order of the labels.
ORDINAL = ("within_1", "mae", "qwk", "spearman", "undefined")
# lm-eval's own word for a standard error there is none of; its tables know no other.
NO_ERROR = "N/A"

Error: TypeAlias = float | str


class Item(tuple[Any, ...]):
    """What a document contributes to a metric that needs several values of it.

    A class of its own, because lm-eval's W&B logger makes a table of the samples, where
    a column of plain tuples that mix numbers and text is an error.
    """


class ByLayer(tuple[Any, ...]):
    """A value a layer, None where undefined; short where lm-eval prints it in a table.

    A list would be printed number by number, whatever its text; in JSON it is one.
    """

    def __repr__(self) -> str:
        known = [value for value in self if value is not None]
        span = f"{min(known):.4g} to {max(known):.4g}" if known else NO_ERROR
        return f"{len(self)} layers, {span}"


def comparable(
    scores: Sequence[float] | Array, labels: Sequence[str], normalise: Normalise
) -> Array:
    """The labels' log-likelihoods as a task compares them.

    Args:
        scores: One a label, ``[..., K]``.
        labels: As the model writes them, without the space before (as lm-eval's acc_norm has it).
        normalise: ``characters`` divides each score by the label's length.
    """
    logits = np.asarray(scores, dtype=np.float64)
    return logits if normalise == "none" else logits / [len(label) for label in labels]


def document_metrics(
    label: int,
    scores: Sequence[float] | Array,
    group: str,
    prefix: str = "",
    *,
    ordinal: bool = True,
) -> dict[str, Any]:
    """What one document contributes to each metric, the keys as lm-eval reports them.

    Args:
        label: The right label, from 1.
        scores: The log-likelihoods of the labels.
        group: The document's group.
        prefix: Goes before every key.
        ordinal: Whether the labels have an order; without one there are no `ORDINAL` metrics.

    Raises:
        UserError: A score is not finite.
    """
    logits = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise UserError(
            f"the model scores the labels with {[float(s) for s in scores]}, which is not "
            "finite; load it with dtype=float32 or dtype=bfloat16 in --model_args"
        )
    logs = log_probabilities(logits)
    probabilities = np.exp(logs)
    prediction = int(np.argmax(probabilities)) + 1
    confidence = float(probabilities[prediction - 1])
    correct = float(prediction == label)
    means = {
        "acc": correct,
        "within_1": float(abs(prediction - label) <= 1),
        "mae": float(abs(prediction - label)),
        "nll": float(-logs[label - 1]),
        "brier": float(((probabilities - (np.arange(len(logits)) + 1 == label)) ** 2).sum()),
        "overconfidence": confidence - correct,
        "label_entropy": float(entropy(logs)),
    }
    pair = Item((label, prediction, group))
    whole: dict[str, Any] = {
        "macro_f1": pair,
        "qwk": pair,
        "spearman": pair,
        "ece": Item((confidence, correct, group)),
        "majority_acc": Item((label, group)),
    }
    if len(logits) == 2:
        whole["auroc"] = Item((label, float(logits[1] - logits[0]), group))
    if not ordinal:
        means, whole = ({k: v for k, v in of.items() if k not in ORDINAL} for of in (means, whole))
    items = {**means, **whole, **({"undefined": pair} if ordinal else {})}
    errors = {name: Item((value, group)) for name, value in means.items()} | whole
    return {prefix + name: item for name, item in items.items()} | {
        f"{prefix}{name}_stderr": item for name, item in errors.items()
    }


# --- Aggregations: from a metric's items to its value -------------------------------


def mean(items: Sequence[float]) -> float:
    """The mean over documents."""
    return float(np.mean(items))


def macro_f1(items: Sequence[tuple[int, int, str]], count: int = FIVE) -> float:
    """Unweighted mean of the labels' F1; a label nobody gives or has counts 0.

    Args:
        items: Label, prediction and group of each document.
        count: How many labels there are.
    """
    from sklearn.metrics import f1_score

    labels, predictions, _ = _columns(items)
    known = range(1, count + 1)
    return float(f1_score(labels, predictions, labels=known, average="macro", zero_division=0.0))


def qwk(items: Sequence[tuple[int, int, str]]) -> float | None:
    """Cohen's kappa with quadratic weights; None where all labels are the same."""
    from sklearn.metrics import cohen_kappa_score

    labels, predictions, _ = _columns(items)
    if len(set(labels)) < 2:
        return None
    known = range(1, max(*labels, *predictions) + 1)
    return float(cohen_kappa_score(labels, predictions, labels=known, weights="quadratic"))


def spearman(items: Sequence[tuple[int, int, str]]) -> float | None:
    """Rank correlation of prediction and label; None where one of them is constant."""
    from scipy.stats import spearmanr

    labels, predictions, _ = _columns(items)
    if len(set(labels)) < 2 or len(set(predictions)) < 2:
        return None
    return float(spearmanr(labels, predictions).statistic)


def ece(items: Sequence[tuple[float, float, str]]) -> float:
    """Expected calibration error: |confidence - accuracy| over 15 bins of equal width."""
    return float(ece_of_sums(_bin_sums(items).sum(axis=0)))


def auroc(items: Sequence[tuple[int, float, str]]) -> float | None:
    """Area under the ROC curve, label 2 the positive one; None where one of the two is absent."""
    from sklearn.metrics import roc_auc_score

    labels, scores, _ = _columns(items)
    if len(set(labels)) < 2:
        return None
    return float(roc_auc_score([label == 2 for label in labels], scores))


def majority_acc(items: Sequence[tuple[int, str]]) -> float:
    """Accuracy of always giving the most frequent label of these documents."""
    return float(majority_of_counts(_label_counts(items).sum(axis=0)))


def undefined(items: Sequence[tuple[int, int, str]]) -> int:
    """How many of the metrics that can be undefined are, and stand as null."""
    return sum(metric(items) is None for metric in (qwk, spearman))


def defined_mean(items: Sequence[float | None]) -> float | None:
    """The mean over the documents that have a value; None where none has."""
    values = [value for value in items if value is not None]
    return mean(values) if values else None


def by_layer_mean(items: Sequence[Sequence[float] | None]) -> ByLayer | None:
    """The mean of each layer over the documents that have values; None where none has."""
    values = [value for value in items if value is not None]
    return ByLayer(np.mean(values, axis=0).tolist()) if values else None


def total(items: Sequence[int]) -> int:
    """The sum over documents."""
    return sum(items)


# --- Standard errors ----------------------------------------------------------------


def mean_stderr(items: Sequence[tuple[float | None, str]]) -> Error:
    """Standard error of `mean` and `defined_mean`."""
    return _jackknife(*_values_and_ones(items), _mean_of_sums)


def by_layer_se(items: Sequence[tuple[Sequence[float] | None, str]]) -> ByLayer | None:
    """Standard errors of `by_layer_mean`, None for a layer that has none."""
    if all(values is None for values, _ in items):
        return None
    errors = _jackknife_errors(*_values_and_ones(items), _mean_of_sums)
    return ByLayer(float(error) if np.isfinite(error) else None for error in errors)


def macro_f1_stderr(items: Sequence[tuple[int, int, str]], count: int = FIVE) -> Error:
    """Standard error of `macro_f1`."""
    return _jackknife(_tables(items, count), _groups(items), macro_f1_of_tables)


def qwk_stderr(items: Sequence[tuple[int, int, str]]) -> Error:
    """Standard error of `qwk`."""
    return _jackknife(_tables(items), _groups(items), qwk_of_tables)


def spearman_stderr(items: Sequence[tuple[int, int, str]]) -> Error:
    """Standard error of `spearman`."""
    return _jackknife(_tables(items), _groups(items), spearman_of_tables)


def auroc_stderr(items: Sequence[tuple[int, float, str]]) -> Error:
    """Standard error of `auroc`: the same jackknife, without computing it anew for each group."""
    labels, scores, groups = (np.array(column) for column in _columns(items))
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return NO_ERROR
    error = _spread(area_of(labels, scores, member, len(names)).without)
    return float(error) if np.isfinite(error) else NO_ERROR


def ece_stderr(items: Sequence[tuple[float, float, str]]) -> Error:
    """Standard error of `ece`."""
    return _jackknife(_bin_sums(items), _groups(items), ece_of_sums)


def majority_acc_stderr(items: Sequence[tuple[int, str]]) -> Error:
    """Standard error of `majority_acc`."""
    return _jackknife(_label_counts(items), _groups(items), majority_of_counts)


def _jackknife(documents: Array, groups: Sequence[str], metric: Callable[[Array], Array]) -> Error:
    """The standard error of `_jackknife_errors` for a metric of one value.

    Returns:
        The error; `NO_ERROR` where it is undefined.
    """
    error = _jackknife_errors(documents, groups, metric)
    return float(error) if np.isfinite(error) else NO_ERROR


def _jackknife_errors(
    documents: Array, groups: Sequence[str], metric: Callable[[Array], Array]
) -> Array:
    """Delete-one-group jackknife of a metric that is a function of sums over documents.

    Args:
        documents: One row of summands a document.
        groups: The group of each.
        metric: From summed rows (on the last axes) to values, NaN where undefined.

    Returns:
        A standard error for each of the metric's values; NaN with a single group, or
        where leaving out some group leaves that value undefined.
    """
    names, member_of = np.unique(np.asarray(groups), return_inverse=True)
    by_group = np.zeros((len(names), *documents.shape[1:]))
    np.add.at(by_group, member_of, documents)
    whole = by_group.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        if len(names) < 2:
            return np.full_like(metric(whole), np.nan)
        return _spread(metric(whole - by_group))


def _spread(without: Array) -> Array:
    """The jackknife's standard error, of values without each group ``[groups, ...]``."""
    squares = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    return np.sqrt((len(without) - 1) / len(without) * squares)  # type: ignore[no-any-return]


def _values_and_ones(items: Sequence[tuple[Any, str]]) -> tuple[Array, list[str]]:
    """Summands of a mean over the documents that have a value, and their groups."""
    known = [(value, group) for value, group in items if value is not None]
    values = np.array([value for value, _ in known], dtype=np.float64)
    return np.stack([values, np.ones_like(values)], axis=-1), [group for _, group in known]


def _mean_of_sums(sums: Array) -> Array:
    mean: Array = sums[..., 0] / sums[..., 1]
    return mean


def _groups(items: Sequence[tuple[Any, ...]]) -> list[str]:
    return [item[-1] for item in items]


def _columns(items: Sequence[tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(zip(*items, strict=True))


def _tables(items: Sequence[tuple[int, int, str]], count: int | None = None) -> Array:
    """A table a document with one 1, at (label, prediction)."""
    labels, predictions, _ = _columns(items)
    size = count or max(*labels, *predictions)
    tables = np.zeros((len(items), size, size))
    tables[np.arange(len(items)), np.array(labels) - 1, np.array(predictions) - 1] = 1.0
    return tables


def _bin_sums(items: Sequence[tuple[float, float, str]]) -> Array:
    """A document's row: in its confidence's bin, 1, the confidence, and whether it is right."""
    bins = bins_of(np.array([confidence for confidence, _, _ in items]))
    sums = np.zeros((len(items), ECE_BINS, 3))
    sums[np.arange(len(items)), bins] = [
        (1.0, confidence, correct) for confidence, correct, _ in items
    ]
    return sums


def _label_counts(items: Sequence[tuple[int, str]]) -> Array:
    labels = np.array([label for label, _ in items])
    counts: Array = (labels[:, None] == np.unique(labels)).astype(np.float64)
    return counts
