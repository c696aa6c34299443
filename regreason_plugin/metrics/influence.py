"""The influence of each group of documents on a statistic."""

from __future__ import annotations

from typing import NamedTuple

from regreason_plugin.metrics.answers import Array


class Statistic(NamedTuple):
    """A metric of several models with the influence of each group on it.

    Attributes:
        values: Value of the metric for each model, ``[models]``; NaN where undefined.
        influence: Influence of each group on each value, ``[models, groups]``; each row has mean
            zero.
    """

    values: Array
    influence: Array


def mean_influence(totals: Array, sizes: Array) -> Statistic:
    """The mean over documents, and the influence of each group on it.

    The influence is the group's sum minus its number of documents times the mean, divided by the
    mean number of documents of a group.

    Args:
        totals: Sums of the documents' values by group, ``[models, groups]``.
        sizes: Number of documents of each group, ``[groups]``.
    """
    documents = sizes.sum()
    values = totals.sum(axis=1) / documents
    return Statistic(values, (totals - values[:, None] * sizes) * (len(sizes) / documents))


def jackknife_influence(whole: Array, without: Array) -> Array:
    """The influence of each group on a statistic that is not a mean, by the jackknife.

    Args:
        whole: Statistic over all groups, ``[models]``.
        without: Statistic without group g, ``[models, groups]``.

    Returns:
        Influences ``[models, groups]``; each row has mean zero. The row of a model is NaN if the
        statistic is undefined without one of the groups.
    """
    influence = (without.shape[1] - 1) * (whole[:, None] - without)
    centred: Array = influence - influence.mean(axis=1, keepdims=True)
    return centred
