"""The area under the ROC curve of two labels: its jackknife and its bootstrap.

The area is the probability that a document of the second label has a higher score for it than a
document of the first, equal scores counting half (Mann and Whitney's U over the number of pairs;
Hanley and McNeil, Radiology 143, 1982). It is a sum over pairs of documents, not over documents.
What leaving out a group takes away follows from the documents' placements among those of the
other label (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988) and from the pairs within the
group; so no area is computed anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.metrics.answers import Array, Integers


@dataclass(frozen=True)
class Ranking:
    """One model's documents of two labels in the order of their scores.

    Attributes:
        first: The groups of the N1 documents of the first label, by rising score, ``[N1]``.
        second: The groups of the N2 documents of the second, ``[N2]``.
        below: How many of the first label score below each of the second, ``[N2]``.
        upto: How many score below or the same, ``[N2]``.
        value: The area; NaN where a label is missing.
        without: The area without each group, ``[G]``; NaN likewise.
    """

    first: Integers
    second: Integers
    below: Integers
    upto: Integers
    value: float
    without: Array

    def weighted(self, weights: NDArray[Any]) -> Array:
        """The area with groups counted several times, as in a bootstrap sample.

        Args:
            weights: How often each group comes, ``[draws, G]``.

        Returns:
            ``[draws]``; NaN where a label is missing.
        """
        counts = np.zeros((len(weights), len(self.first) + 1))
        np.cumsum(weights[:, self.first], axis=1, out=counts[:, 1:])
        second = weights[:, self.second].astype(np.float64)
        higher = (counts[:, self.below] + counts[:, self.upto]) / 2
        pairs = second.sum(axis=1) * counts[:, -1]
        found: Array = _ratio((second * higher).sum(axis=1), pairs)
        return found


def ranking_of(labels: Integers, scores: Array, member: Integers, groups: int) -> Ranking:
    """Rank what one model answered.

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
    return Ranking(
        first=member[one],
        second=member[two],
        below=below,
        upto=upto,
        value=float(_ratio(whole, np.float64(len(one) * len(two)))),
        without=_ratio(whole - lost, (left_one * left_two).astype(np.float64)),
    )


def _placements(of: Integers, among: Integers) -> Array:
    """How many of ``among`` lie below each of ``of``, equal ones counting half."""
    ordered = np.sort(among)
    left, right = (np.searchsorted(ordered, of, side) for side in ("left", "right"))
    found: Array = (left + right) / 2
    return found


def _by_group(member: Integers, values: Array, groups: int) -> Array:
    return np.bincount(member, values, minlength=groups).astype(np.float64)


def _ratio(pairs: Any, of: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(of > 0, pairs / of, np.nan)
