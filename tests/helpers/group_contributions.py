"""Influences of groups on a mean, computed directly from the documents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def contributions_of(values: Array, member: NDArray[np.int64]) -> Array:
    """Sums of deviations by group ``[seeds, groups]`` from values ``[seeds, documents]``."""
    deviations = (values - values.mean(axis=1, keepdims=True)) / len(member)
    return np.stack([np.bincount(member, row) for row in deviations])


def allowance(ahead: Array, member: NDArray[np.int64]) -> float:
    """The factor by which a variance is multiplied to allow for events that were not observed.

    It is the factor for the variance of one seed's difference in accuracy: Kish's design effect is
    the lower bound, and one event is added that is as large as the largest observed one.

    Args:
        ahead: Documents won (1), lost (-1) or neither (0), ``[documents]``.
        member: Index of each document's group.
    """
    sizes, count = np.bincount(member).astype(float), len(member)
    away = (ahead - ahead.mean()) / count
    by_group, squares = np.bincount(member, away), np.bincount(member, away**2)
    seen = (by_group**2 / (1 - sizes / count)).sum()
    event = max((away**2).max(), 1 / count**2)
    several = sizes > 1
    alike = 1.0
    if several.any():
        size = (sizes[several] ** 2).sum() / sizes[several].sum()
        # Probability that none of these groups has had an event, at a document's rate of events.
        groups = sizes[several].sum() ** 2 / (sizes[several] ** 2).sum()
        none_yet = (1 - min(squares.sum() / event / count, 1)) ** groups
        more = (size - 1) * (1 + size / 10 * none_yet) * event
        together = (by_group**2 - squares)[several].sum() + more
        alike = min(max(together / (((sizes - 1) * squares).sum() + more), 0.0), 1.0)
    effect = 1 + alike * ((sizes**2).sum() / count - 1)
    return float((max(seen, squares.sum() * effect) + event * effect) / seen)


def squares_of(values: Array, member: NDArray[np.int64]) -> Array:
    """Sums of the documents' squared deviations by group, averaged over seeds."""
    of_seeds = values.mean(axis=0)
    squares: Array = np.bincount(member, ((of_seeds - of_seeds.mean()) / len(member)) ** 2)
    return squares
