"""The area under the ROC curve for two labels, and its jackknife over groups of documents.

The area is the probability that a document of the second label has a higher score for this label
than a document of the first label; equal scores count half. It is Mann and Whitney's U divided by
the number of pairs (Hanley and McNeil, Radiology 143, 1982), so it is a sum over pairs of
documents, not over documents. The area without a group is not computed from the documents again.
The pairs that the group takes away follow from the placements of its documents among those of the
other label (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988) and from the pairs within the
group.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from regreason_plugin.metrics.answers import Array, Integers


class Area(NamedTuple):
    """The area under the ROC curve of one model; NaN if a label has no documents.

    Attributes:
        value: Area over all documents.
        without: Areas over all documents but those of group g, ``[G]``.
    """

    value: float
    without: Array


def area_of(labels: Integers, scores: Array, member: Integers, groups: int) -> Area:
    """The area of one model's scores, over all documents and without each group.

    Args:
        labels: True labels, 1 or 2, ``[N]``.
        scores: Log odds of the second label, ``[N]``. Probabilities would not do: near 1, different
            scores round to the same probability.
        member: Index of each document's group, ``[N]``.
        groups: Number of groups, G.
    """
    level: Integers = np.unique(scores, return_inverse=True)[1].astype(np.int64)
    is_second = labels == 2
    one, two = np.flatnonzero(~is_second), np.flatnonzero(is_second)
    one = one[np.argsort(level[one], kind="stable")]
    below = np.searchsorted(level[one], level[two], "left")
    upto = np.searchsorted(level[one], level[two], "right")
    among_second = _placements(level[one], level[two])
    # Pairs within a group: each group gets its own range of levels, so that a placement counts
    # documents of the same group once those of earlier groups are subtracted.
    own_level = level + member * (level.max(initial=0) + 1)
    start = np.searchsorted(np.sort(own_level[one]), member[two] * (level.max(initial=0) + 1))
    inner = _by_group(member[two], _placements(own_level[two], own_level[one]) - start, groups)
    pairs = (below + upto) / 2
    lost = _by_group(member[two], pairs, groups)
    lost += _by_group(member[one], len(two) - among_second, groups) - inner
    whole = pairs.sum()
    left_one, left_two = (
        len(indices) - np.bincount(member[indices], minlength=groups) for indices in (one, two)
    )
    return Area(
        value=float(_ratio(whole, np.float64(len(one) * len(two)))),
        without=_ratio(whole - lost, (left_one * left_two).astype(np.float64)),
    )


def _placements(of: Integers, among: Integers) -> Array:
    """For each value in ``of``, the number of lower values in ``among``; equal ones count half."""
    ordered = np.sort(among)
    left, right = (np.searchsorted(ordered, of, side) for side in ("left", "right"))
    counts: Array = (left + right) / 2
    return counts


def _by_group(member: Integers, values: Array, groups: int) -> Array:
    return np.bincount(member, values, minlength=groups).astype(np.float64)


def _ratio(pairs: Any, of: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(of > 0, pairs / of, np.nan)
