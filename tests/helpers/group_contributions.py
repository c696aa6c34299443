"""What groups of documents contribute to a plain mean, straight from the documents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def contributions_of(values: Array, member: NDArray[np.int64]) -> Array:
    """Sums of the deviations by group, ``[seeds, groups]``, of values ``[seeds, documents]``."""
    deviations = (values - values.mean(axis=1, keepdims=True)) / len(member)
    return np.stack([np.bincount(member, row) for row in deviations])


def squares_of(values: Array, member: NDArray[np.int64]) -> Array:
    """By group, the sums of squares of the documents' own deviations, the mean over seeds."""
    of_seeds = values.mean(axis=0)
    squares: Array = np.bincount(member, ((of_seeds - of_seeds.mean()) / len(member)) ** 2)
    return squares
