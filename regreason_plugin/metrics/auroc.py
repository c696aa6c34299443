"""The area under the ROC curve of two labels: and its jackknife.

The area is the probability that a document of the second label has a higher score for it than a
document of the first, equal scores counting half (Mann and Whitney's U over the number of pairs;
Hanley and McNeil, Radiology 143, 1982). It is a sum over pairs of documents, not over documents.
What leaving out a group takes away follows from the documents' placements among those of the
other label (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988) and from the pairs within the
group; so no area is computed anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from regreason_plugin.metrics.answers import Array, Integers


class Area(NamedTuple):
    """The area of one model; NaN where a label is missing.

    Attributes:
        value: Of all documents.
        without: Without each group, ``[G]``.
    """

    value: float
    without: Array


def area_of(labels: Integers, scores: Array, member: Integers, groups: int) -> Area:
    """The area of what one model answered, and without each group.

    Args:
        labels: 1 or 2, ``[N]``.
        scores: Of the second label, ``[N]``: its log odds, as probabilities near 1 would be ties
            that the scores are not.
        member: The place of each document's group, ``[N]``.
        groups: G.
    """
    level: Integers = np.unique(scores, return_inverse=True)[1].astype(np.int64)
    is_second = labels == 2
    one, two = np.flatnonzero(~is_second), np.flatnonzero(is_second)
    one = one[np.argsort(level[one], kind="stable")]
    below = np.searchsorted(level[one], level[two], "left")
    upto = np.searchsorted(level[one], level[two], "right")
    among_second = _placements(level[one], level[two])
    # Within a group: each group's levels apart from all others'.
    apart = level + member * (level.max(initial=0) + 1)
    start = np.searchsorted(np.sort(apart[one]), member[two] * (level.max(initial=0) + 1))
    inner = _by_group(member[two], _placements(apart[two], apart[one]) - start, groups)
    pairs = (below + upto) / 2
    lost = _by_group(member[two], pairs, groups)
    lost += _by_group(member[one], len(two) - among_second, groups) - inner
    whole = pairs.sum()
    left_one, left_two = (
        len(place) - np.bincount(member[place], minlength=groups) for place in (one, two)
    )
    return Area(
        value=float(_ratio(whole, np.float64(len(one) * len(two)))),
        without=_ratio(whole - lost, (left_one * left_two).astype(np.float64)),
    )


def _placements(of: Integers, among: Integers) -> Array:
    """How many of ``among`` lie below each of ``of``, equal ones counting half."""
    ordered = np.sort(among)
    left, right = (np.searchsorted(ordered, of, side) for side in ("left", "right"))
    counts: Array = (left + right) / 2
    return counts


def _by_group(member: Integers, values: Array, groups: int) -> Array:
    return np.bincount(member, values, minlength=groups).astype(np.float64)


def _ratio(pairs: Any, of: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(of > 0, pairs / of, np.nan)
