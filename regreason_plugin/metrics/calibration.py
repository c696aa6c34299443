"""How far confidence and accuracy are apart, and what chance alone would show.

A prediction's gap is its confidence minus whether it is right. Predictions are sorted by
confidence into bins of equal width. The plain calibration error sums the bins' absolute gaps: even
of a calibrated model it is above zero, the more so the fewer documents a bin holds and the less
confident the model is. `miscalibration` is free of that bias, and `expected_ece` and
`calibrated_band` say what a calibrated model would show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.metrics.answers import Array, Integers
from regreason_plugin.metrics.influence import Statistic, jackknife_influence

ECE_BINS = 15


def bins_of(confidences: NDArray[np.floating]) -> Integers:
    """The bin of each confidence, from 0; closed on the right, so that 1 is in the last one."""
    bins: Integers = np.ceil(confidences * ECE_BINS).astype(np.int64) - 1
    return bins.clip(0, ECE_BINS - 1)


def ece_of_sums(sums: Array) -> Array:
    """Calibration error of sums ``[..., bin, (count, confidence, correct)]``."""
    gaps: Array = np.abs(sums[..., 1] - sums[..., 2]).sum(-1) / sums[..., 0].sum(-1)
    return gaps


def miscalibration(gaps: Array, counts: Array) -> Statistic:
    """The squared gap between confidence and accuracy, without the bias of chance.

    In a bin, the mean of gap times gap over all pairs of documents of different groups estimates
    the square of the mean gap without bias, where groups are independent: a U-statistic. Bins
    count by their share of the documents. Of groups of one document it is the debiased squared
    calibration error of Kumar, Liang and Ma (Verified Uncertainty Calibration, NeurIPS 2019,
    section 4), and the bias-corrected reliability of the Brier score of Broecker (Climate Dynamics
    39, 2012) and of Ferro and Fricker (Quarterly Journal of the Royal Meteorological Society 138,
    2012). It is below zero where the gaps are smaller than chance would make them. A bin with a
    single group has no such pair and adds nothing, so that gaps in thin bins are understated.

    The influences are those of the jackknife. Of a calibrated model they all but vanish where the
    estimate is by chance at its lowest, so they are raised until their variance is at least the
    one that the U-statistic has without any true gap (Hoeffding, Annals of Mathematical Statistics
    19, 1948, section 5).

    Args:
        gaps: Summed by group and bin, ``[G, bins]``.
        counts: How many documents, likewise.

    Returns:
        Of one model: ``[1]`` and ``[1, G]``; NaN where no bin holds two groups.
    """
    gap, count = gaps.sum(axis=0), counts.sum(axis=0)
    own_gap, own_count = (gaps**2).sum(axis=0), (counts**2).sum(axis=0)
    value = _cross_group(gap, count, own_gap, own_count)
    without = _cross_group(gap - gaps, count - counts, own_gap - gaps**2, own_count - counts**2)
    influence = jackknife_influence(value[None], without[None])
    groups = len(gaps)
    variance = float((influence**2).sum()) / max(groups * (groups - 1), 1)
    least = _variance_without_gap(gaps, _pair_weights(count, own_count))
    if 0 < variance < least:
        influence = influence * (least / variance) ** 0.5
    return Statistic(value[None], influence)


def _pair_weights(count: Array, own_count: Array) -> Array:
    """Each bin's share of the documents over its number of pairs, ``[..., bins]``."""
    pairs = count**2 - own_count
    with np.errstate(invalid="ignore", divide="ignore"):
        share = count / count.sum(axis=-1, keepdims=True)
        return np.where(pairs > 0, share / pairs, 0.0)


def _cross_group(gap: Array, count: Array, own_gap: Array, own_count: Array) -> Array:
    """The U-statistic of sums ``[..., bins]`` and of the groups' squared sums; ``[...]``."""
    weights = _pair_weights(count, own_count)
    value = (weights * (gap**2 - own_gap)).sum(axis=-1)
    return np.where(weights.any(axis=-1), value, np.nan)


def _variance_without_gap(gaps: Array, weights: Array) -> float:
    """The U-statistic's variance if no bin had a true gap.

    It is twice the sum, over ordered pairs of groups, of the square of what the pair adds; so it
    is summed over pairs of bins, not of groups.

    Args:
        gaps: ``[G, bins]``.
        weights: Of `_pair_weights`, ``[bins]``.
    """
    over_pairs = (gaps.T @ gaps) ** 2 - (gaps**2).T @ gaps**2
    return 2 * float(weights @ over_pairs @ weights)
