"""The metrics of a task and their standard errors, as lm-eval aggregates them.

For each document and metric, lm-eval asks the task for an item (`document_metrics`). It then passes
all items of a metric to the metric's aggregation, one of the functions below. Each item is also
reported as ``<metric>_stderr``, so that an aggregation of ours can fill lm-eval's cell for the
standard error.

Documents come in groups (a conversation, a story, a film). So every standard error is a
delete-one-group jackknife: it comes from the values of the metric without group g, for each g. For
a mean over groups of one document it equals lm-eval's own standard error; it is larger if the
documents of a group tend to be wrong together. It uses no random numbers. The metrics without a
group are computed from sums by group, for all groups at once; the metrics themselves come from
scikit-learn and scipy where these have them.
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

# Default number of labels.
DEFAULT_LABELS = 5
# Metrics that exist only for labels with an order.
ORDINAL = ("within_1", "mae", "qwk", "spearman", "undefined")
# lm-eval's word for an undefined standard error, the only one that its tables accept.
NO_ERROR = "N/A"

Error: TypeAlias = float | str


class Item(tuple[Any, ...]):
    """A document's item for a metric that needs several values of each document.

    It is a class because lm-eval's W&B logger makes a table of the samples, and a column of plain
    tuples with both numbers and text is an error there.
    """


class ByLayer(tuple[Any, ...]):
    """One value for each layer, None where undefined, with a short text for lm-eval's tables.

    It is a tuple because lm-eval prints every number of a list. In JSON it is a list.
    """

    def __repr__(self) -> str:
        known = [value for value in self if value is not None]
        span = f"{min(known):.4g} to {max(known):.4g}" if known else NO_ERROR
        return f"{len(self)} layers, {span}"


def comparable(
    scores: Sequence[float] | Array, labels: Sequence[str], normalise: Normalise
) -> Array:
    """The labels' scores in the form in which a task compares them, ``[..., K]``.

    Args:
        scores: Log-likelihood of each label, ``[..., K]``.
        labels: Labels as the model writes them, without the space before them (as in lm-eval's
            acc_norm).
        normalise: ``characters`` divides each score by the label's length in characters.
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
    """The items of one document, by the keys under which lm-eval reports the metrics.

    Args:
        label: True label, counted from 1.
        scores: Log-likelihoods of the labels.
        group: Group of the document.
        prefix: Prefix of every key.
        ordinal: Whether the labels have an order; if not, the `ORDINAL` metrics are left out.

    Raises:
        UserError: A score is not finite.
    """
    logits = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise UserError(
            f"the model's scores of the labels are not finite: {[float(s) for s in scores]}; load "
            "it with dtype=float32 or dtype=bfloat16 in --model_args"
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


# --- Aggregations: a metric's value from its items ----------------------------------


def mean(items: Sequence[float]) -> float:
    """The mean over documents."""
    return float(np.mean(items))


def macro_f1(items: Sequence[tuple[int, int, str]], count: int = DEFAULT_LABELS) -> float:
    """Unweighted mean of the labels' F1; a label that is neither true nor predicted has F1 0.

    Args:
        items: Label, prediction and group of each document.
        count: Number of labels of the task.
    """
    from sklearn.metrics import f1_score

    labels, predictions, _ = _columns(items)
    known = range(1, count + 1)
    return float(f1_score(labels, predictions, labels=known, average="macro", zero_division=0.0))


def qwk(items: Sequence[tuple[int, int, str]]) -> float | None:
    """Cohen's kappa with quadratic weights; None if all labels are the same."""
    from sklearn.metrics import cohen_kappa_score

    labels, predictions, _ = _columns(items)
    if len(set(labels)) < 2:
        return None
    known = range(1, max(*labels, *predictions) + 1)
    return float(cohen_kappa_score(labels, predictions, labels=known, weights="quadratic"))


def spearman(items: Sequence[tuple[int, int, str]]) -> float | None:
    """Rank correlation of prediction and label; None if one of them is constant."""
    from scipy.stats import spearmanr

    labels, predictions, _ = _columns(items)
    if len(set(labels)) < 2 or len(set(predictions)) < 2:
        return None
    return float(spearmanr(labels, predictions).statistic)


def ece(items: Sequence[tuple[float, float, str]]) -> float:
    """Expected calibration error: |confidence - accuracy| over 15 bins of equal width."""
    return float(ece_of_sums(_bin_sums(items).sum(axis=0)))


def auroc(items: Sequence[tuple[int, float, str]]) -> float | None:
    """Area under the ROC curve with label 2 as the positive one; None if a label is absent."""
    from sklearn.metrics import roc_auc_score

    labels, scores, _ = _columns(items)
    if len(set(labels)) < 2:
        return None
    return float(roc_auc_score([label == 2 for label in labels], scores))


def majority_acc(items: Sequence[tuple[int, str]]) -> float:
    """Accuracy of a classifier that always predicts the most frequent label of these documents."""
    return float(majority_of_counts(_label_counts(items).sum(axis=0)))


def undefined(items: Sequence[tuple[int, int, str]]) -> int:
    """The number of undefined metrics among `qwk` and `spearman`, which results hold as null."""
    return sum(metric(items) is None for metric in (qwk, spearman))


def defined_mean(items: Sequence[float | None]) -> float | None:
    """The mean over the documents that have a value; None if none has one."""
    values = [value for value in items if value is not None]
    return mean(values) if values else None


def by_layer_mean(items: Sequence[Sequence[float] | None]) -> ByLayer | None:
    """The mean of each layer over the documents that have values; None if none has any."""
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
    """Standard errors of `by_layer_mean`; None for a layer whose error is undefined."""
    if all(values is None for values, _ in items):
        return None
    errors = _jackknife_errors(*_values_and_ones(items), _mean_of_sums)
    return ByLayer(float(error) if np.isfinite(error) else None for error in errors)


def macro_f1_stderr(items: Sequence[tuple[int, int, str]], count: int = DEFAULT_LABELS) -> Error:
    """Standard error of `macro_f1`."""
    return _jackknife(_tables(items, count), _groups(items), macro_f1_of_tables)


def qwk_stderr(items: Sequence[tuple[int, int, str]]) -> Error:
    """Standard error of `qwk`."""
    return _jackknife(_tables(items), _groups(items), qwk_of_tables)


def spearman_stderr(items: Sequence[tuple[int, int, str]]) -> Error:
    """Standard error of `spearman`."""
    return _jackknife(_tables(items), _groups(items), spearman_of_tables)


def auroc_stderr(items: Sequence[tuple[int, float, str]]) -> Error:
    """Standard error of `auroc`, by the same jackknife but with fast areas without each group."""
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
    """The standard error by `_jackknife_errors` of a metric with one value.

    Returns:
        The error; `NO_ERROR` if it is undefined.
    """
    error = _jackknife_errors(documents, groups, metric)
    return float(error) if np.isfinite(error) else NO_ERROR


def _jackknife_errors(
    documents: Array, groups: Sequence[str], metric: Callable[[Array], Array]
) -> Array:
    """Delete-one-group jackknife of a metric that is a function of sums over documents.

    Args:
        documents: One row of summands for each document.
        groups: Group of each document.
        metric: Function of sums of rows (on the last axes), which returns the metric's values,
            NaN where undefined.

    Returns:
        Standard error of each value; NaN with a single group, or if a value is undefined without
        one of the groups.
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
    """The jackknife's standard error from the values without each group, ``[groups, ...]``."""
    squares = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    return np.sqrt((len(without) - 1) / len(without) * squares)  # type: ignore[no-any-return]


def _values_and_ones(items: Sequence[tuple[Any, str]]) -> tuple[Array, list[str]]:
    """The documents that have a value: rows of the value and 1, and their groups."""
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
    """One table for each document, with a 1 at (label, prediction) and 0 elsewhere."""
    labels, predictions, _ = _columns(items)
    size = count or max(*labels, *predictions)
    tables = np.zeros((len(items), size, size))
    tables[np.arange(len(items)), np.array(labels) - 1, np.array(predictions) - 1] = 1.0
    return tables


def _bin_sums(items: Sequence[tuple[float, float, str]]) -> Array:
    """One table for each document: 1, confidence and correctness in its bin, 0 in the others."""
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
