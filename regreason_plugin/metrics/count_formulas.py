"""Formulas of metrics from counts and sums, vectorised over any number of tables."""

from __future__ import annotations

import numpy as np

from regreason_plugin.metrics.answers import Array, Integers


def table_of(
    rows: Integers, columns: Integers, shape: tuple[int, int], values: Array | None = None
) -> Array:
    """Sum documents' values into the cells of a table.

    Args:
        rows: Row of each document, ``[N]``.
        columns: Column of each document, ``[N]``.
        shape: Numbers of rows and of columns.
        values: Value of each document, ``[N]``; None to count the documents.
    """
    cells = np.bincount(rows * shape[1] + columns, values, shape[0] * shape[1])
    table: Array = cells.reshape(shape).astype(np.float64)
    return table


def log_probabilities(scores: Array) -> Array:
    """Log-probabilities ``[..., K]`` over the labels from their scores ``[..., K]``.

    The scores are log-likelihoods, or log-likelihoods per character.
    """
    logs: Array = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
    return logs


def entropy(logs: Array) -> Array:
    """Entropy in nats, ``[...]``, of log-probabilities ``[..., K]``."""
    nats: Array = -(np.exp(logs) * logs).sum(axis=-1)
    return nats


def macro_f1_of_tables(tables: Array) -> Array:
    """Macro-F1, ``[...]``, from counts ``[..., label, prediction]``."""
    hits = np.diagonal(tables, axis1=-2, axis2=-1)
    return macro_f1_of_counts(hits, tables.sum(axis=-1), tables.sum(axis=-2))


def macro_f1_of_counts(hits: Array, right: Array, predicted: Array) -> Array:
    """Macro-F1 from three counts for each label.

    Args:
        hits: Documents for which the label is both true and predicted, ``[..., K]``.
        right: Documents for which the label is true, ``[..., K]``.
        predicted: Documents for which the label is predicted, ``[..., K]``.

    Returns:
        ``[...]``; a label that is neither true nor predicted has an F1 of 0.
    """
    f1: Array = 2 * hits / np.maximum(right + predicted, 1)
    return f1.mean(axis=-1)  # type: ignore[no-any-return]


def qwk_of_tables(tables: Array) -> Array:
    """Quadratic weighted kappa from counts ``[..., label, prediction]``.

    Returns:
        ``[...]``; NaN if all documents have the same true label.
    """
    distance = np.subtract.outer(range(tables.shape[-1]), range(tables.shape[-1])) ** 2
    squared = (distance * tables).sum((-2, -1))
    return qwk_of_counts(squared, tables.sum(axis=-1), tables.sum(axis=-2))


def qwk_of_counts(squared: Array, right: Array, predicted: Array) -> Array:
    """Quadratic weighted kappa: 1 minus the squared errors divided by those expected by chance.

    Args:
        squared: Sum of the squared errors, ``[...]``.
        right: Documents for which each label is true, ``[..., K]``.
        predicted: Documents for which each label is predicted, ``[..., K]``.

    Returns:
        ``[...]``; NaN if all documents have the same true label.
    """
    count = right.shape[-1]
    distance = (np.subtract.outer(range(count), range(count)) ** 2).astype(right.dtype)
    by_chance = ((right @ distance) * predicted).sum(axis=-1) / right.sum(axis=-1)
    kappa: Array = np.where((right > 0).sum(axis=-1) > 1, 1 - squared / by_chance, np.nan)
    return kappa


def spearman_of_tables(tables: Array) -> Array:
    """Spearman's correlation, ``[...]``, from counts ``[..., label, prediction]``.

    Ties get their mean rank.
    """

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
    """The share of the most frequent label, ``[...]``, from counts ``[..., label]``."""
    share: Array = counts.max(axis=-1) / counts.sum(axis=-1)
    return share
