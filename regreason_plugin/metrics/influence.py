"""What each group of documents adds to a statistic."""

from __future__ import annotations

from typing import NamedTuple

from regreason_plugin.metrics.answers import Array


class Statistic(NamedTuple):
    """A metric of several models, and how much each group has to do with it.

    Attributes:
        values: One a model, ``[models]``; NaN where undefined.
        influence: ``[models, groups]``, whose rows average zero.
    """

    values: Array
    influence: Array


def mean_influence(totals: Array, sizes: Array) -> Statistic:
    """A mean over documents and what each group adds to it beyond its size's share.

    Args:
        totals: Sums by group, ``[models, groups]``.
        sizes: Documents by group, ``[groups]``.
    """
    documents = sizes.sum()
    values = totals.sum(axis=1) / documents
    return Statistic(values, (totals - values[:, None] * sizes) * (len(sizes) / documents))


def jackknife_influence(whole: Array, without: Array) -> Array:
    """What each group adds to a statistic that is no mean.

    Args:
        whole: The statistic, ``[models]``.
        without: The statistic without group g, ``[models, groups]``.

    Returns:
        ``[models, groups]``, whose rows average zero; NaN in the rows of a model for which some
        group leaves the statistic undefined.
    """
    influence = (without.shape[1] - 1) * (whole[:, None] - without)
    centred: Array = influence - influence.mean(axis=1, keepdims=True)
    return centred
