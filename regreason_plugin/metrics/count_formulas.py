"""The formulas of the metrics over counts and sums, for any number of tables at once."""

from __future__ import annotations

import numpy as np

from regreason_plugin.metrics.answers import Array, Integers


def table_of(
    rows: Integers, columns: Integers, shape: tuple[int, int], values: Array | None = None
) -> Array:
    """Sums of documents' values by row and column of a table.

    Args:
        rows: The row of each document, ``[N]``.
        columns: Its column, likewise.
        shape: How many rows and columns there are.
        values: Of each, ``[N]``; without them documents are counted.
    """
    cells = np.bincount(rows * shape[1] + columns, values, shape[0] * shape[1])
    table: Array = cells.reshape(shape).astype(np.float64)
    return table


def log_probabilities(scores: Array) -> Array:
    """Of the labels' log-likelihoods ``[..., K]``, likewise; as they come, or by character."""
    logs: Array = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
    return logs


def entropy(logs: Array) -> Array:
    """In nats, of log-probabilities ``[..., K]``."""
    nats: Array = -(np.exp(logs) * logs).sum(axis=-1)
    return nats


def macro_f1_of_tables(tables: Array) -> Array:
    """Macro-F1 of counts ``[..., label, prediction]``."""
    hits = np.diagonal(tables, axis1=-2, axis2=-1)
    return macro_f1_of_counts(hits, tables.sum(axis=-1), tables.sum(axis=-2))


def macro_f1_of_counts(hits: Array, right: Array, predicted: Array) -> Array:
    """Macro-F1 of how often each label is predicted and right, is right, is predicted.

    Args:
        hits: ``[..., K]``.
        right: Likewise.
        predicted: Likewise.

    Returns:
        ``[...]``; a label that is neither right nor predicted counts 0.
    """
    f1: Array = 2 * hits / np.maximum(right + predicted, 1)
    return f1.mean(axis=-1)  # type: ignore[no-any-return]


def qwk_of_tables(tables: Array) -> Array:
    """Quadratic weighted kappa of counts ``[..., label, prediction]``; NaN of one label only."""
    distance = np.subtract.outer(range(tables.shape[-1]), range(tables.shape[-1])) ** 2
    squared = (distance * tables).sum((-2, -1))
    return qwk_of_counts(squared, tables.sum(axis=-1), tables.sum(axis=-2))


def qwk_of_counts(squared: Array, right: Array, predicted: Array) -> Array:
    """Quadratic weighted kappa: 1 less the squared errors over those of chance.

    Args:
        squared: Their sum, ``[...]``.
        right: How often each label is right, ``[..., K]``.
        predicted: How often each is predicted, likewise.

    Returns:
        ``[...]``; NaN of one right label only.
    """
    count = right.shape[-1]
    distance = (np.subtract.outer(range(count), range(count)) ** 2).astype(right.dtype)
    by_chance = ((right @ distance) * predicted).sum(axis=-1) / right.sum(axis=-1)
    kappa: Array = np.where((right > 0).sum(axis=-1) > 1, 1 - squared / by_chance, np.nan)
    return kappa


def spearman_of_tables(tables: Array) -> Array:
    """Spearman's correlation of counts ``[..., label, prediction]``; ties have their mean rank."""

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


def majority_of_counts(counts: Array) -> Array:
    """The share of the most frequent label of counts ``[..., label]``."""
    share: Array = counts.max(axis=-1) / counts.sum(axis=-1)
    return share
