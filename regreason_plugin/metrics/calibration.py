"""Measures of calibration, and the values that a calibrated model would have by chance.

A prediction's gap is its confidence minus its correctness (1 or 0). Predictions are sorted by
confidence into bins of equal width. The expected calibration error sums the bins' absolute gaps.
Even for a calibrated model it is above zero, and it grows as bins hold fewer documents and as the
model is less confident. `miscalibration` does not have this bias. `expected_ece` and
`calibrated_band` return the values that a calibrated model would have.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.metrics.answers import Array, Integers
from regreason_plugin.metrics.count_formulas import table_of
from regreason_plugin.metrics.influence import Statistic, jackknife_influence

ECE_BINS = 15


def bins_of(confidences: NDArray[np.floating]) -> Integers:
    """The bin of each confidence, counted from 0; bins are closed on the right, so 1 has a bin."""
    bins: Integers = np.ceil(confidences * ECE_BINS).astype(np.int64) - 1
    return bins.clip(0, ECE_BINS - 1)


def ece_of_sums(sums: Array) -> Array:
    """Expected calibration error from sums ``[..., bin, (count, confidence, correct)]``."""
    gaps: Array = np.abs(sums[..., 1] - sums[..., 2]).sum(-1) / sums[..., 0].sum(-1)
    return gaps


def miscalibration(confidences: Array, correct: Array, member: Integers) -> Statistic:
    """The squared gap between confidence and accuracy, in percent, without the bias from chance.

    It is 1 if confidence and accuracy differ by ten points in every bin, and 0.01 if they differ
    by one point. Within a bin, the product of two documents' gaps is averaged over all pairs of
    documents from different groups. If groups are independent, this U-statistic is an unbiased
    estimate of the squared mean gap. Bins are weighted by their share of the documents. If every
    group has one document, the result is the debiased squared calibration error of Kumar, Liang
    and Ma (Verified Uncertainty Calibration, NeurIPS 2019, section 4), and the bias-corrected
    reliability of the Brier score of Broecker (Climate Dynamics 39, 2012) and of Ferro and Fricker
    (Quarterly Journal of the Royal Meteorological Society 138, 2012). It is negative if the gaps
    are smaller than chance would make them. A bin with a single group has no pair and adds
    nothing, so gaps in sparse bins are understated.

    The influences come from the jackknife. They almost vanish if the estimate of a calibrated model
    is at its lowest by chance, or if all answers are correct. So they are scaled up until their
    variance is at least the variance of the estimate for a calibrated model with these confidences.

    Args:
        confidences: Probability of each prediction, ``[N]``.
        correct: 1 where the prediction is correct, otherwise 0, ``[N]``.
        member: Index of each document's group, from 0 and without gaps, ``[N]``.

    Returns:
        Value ``[1]`` and influences ``[1, G]`` of one model; NaN if no bin holds two groups.
    """
    bins, groups = bins_of(confidences), int(member.max()) + 1
    gaps = table_of(member, bins, (groups, ECE_BINS), confidences - correct)
    counts = table_of(member, bins, (groups, ECE_BINS))
    gap, count = gaps.sum(axis=0), counts.sum(axis=0)
    own_gap, own_count = (gaps**2).sum(axis=0), (counts**2).sum(axis=0)
    value = _cross_group(gap, count, own_gap, own_count)
    without = _cross_group(gap - gaps, count - counts, own_gap - gaps**2, own_count - counts**2)
    influence = 100 * jackknife_influence(value[None], without[None])
    variance = float((influence**2).sum()) / max(groups * (groups - 1), 1)
    least = variance_if_calibrated(confidences, correct, member)
    # A variance below the lower bound is a rounding error of 0: all gaps are equal.
    if 1e-12 * least < variance < least:
        influence = influence * (least / variance) ** 0.5
    return Statistic(100 * value[None], influence)


def variance_if_calibrated(confidences: Array, correct: Array, member: Integers) -> float:
    """The variance of `miscalibration` for a calibrated model with the same confidences.

    If the true gap is zero, the variance of the U-statistic is twice the sum, over pairs of groups,
    of the product of their variances (Hoeffding, Annals of Mathematical Statistics 19, 1948,
    section 5).

    Args:
        confidences: Probability of each prediction, ``[N]``.
        correct: 1 where the prediction is correct, otherwise 0, ``[N]``; for the design effect.
        member: Index of each document's group, from 0 and without gaps, ``[N]``.
    """
    bins = bins_of(confidences)
    shape = (int(member.max()) + 1, ECE_BINS)
    counts = table_of(member, bins, shape)
    chance = table_of(member, bins, shape, confidences * (1 - confidences))
    weights = _pair_weights(counts.sum(axis=0), (counts**2).sum(axis=0))
    of_pairs = chance.sum(axis=0) ** 2 - (chance**2).sum(axis=0)
    effect = design_effect(confidences - correct, bins, member)
    return 2 * (100 * effect) ** 2 * float((weights**2 * of_pairs).sum())


def _pair_weights(count: Array, own_count: Array) -> Array:
    """Each bin's share of the documents divided by its number of pairs, ``[..., bins]``.

    Args:
        count: Documents of each bin, ``[..., bins]``.
        own_count: Sums over groups of the squared numbers of documents, ``[..., bins]``.
    """
    pairs = count**2 - own_count
    with np.errstate(invalid="ignore", divide="ignore"):
        share = count / count.sum(axis=-1, keepdims=True)
        return np.where(pairs > 0, share / pairs, 0.0)


def _cross_group(gap: Array, count: Array, own_gap: Array, own_count: Array) -> Array:
    """The U-statistic from sums by bin.

    Args:
        gap: Sums of the gaps, ``[..., bins]``.
        count: Numbers of documents, ``[..., bins]``.
        own_gap: Sums over groups of the groups' squared sums of gaps, ``[..., bins]``.
        own_count: Sums over groups of the groups' squared numbers of documents, ``[..., bins]``.

    Returns:
        ``[...]``; NaN if no bin holds two groups.
    """
    weights = _pair_weights(count, own_count)
    value = (weights * (gap**2 - own_gap)).sum(axis=-1)
    return np.where(weights.any(axis=-1), value, np.nan)


def design_effect(gaps: Array, bins: Integers, member: Integers) -> float:
    """The variance of the bins' accuracy, relative to that of independent documents.

    Documents of a group, and the answers of several seeds to one document, tend to be correct or
    wrong together. The effect is the variance of the groups' summed gaps divided by the variance
    of the documents' gaps, both about the bin's mean, over all bins (Kish, Survey Sampling, 1965,
    section 5.4).

    Args:
        gaps: Confidence minus correctness (1 or 0) of each answer, ``[N]``.
        bins: Bin of each answer, ``[N]``.
        member: Index of each answer's group, from 0, ``[N]``.

    Returns:
        1 or more; 1 if no bin holds two groups.
    """
    shape = (int(member.max(initial=0)) + 1, ECE_BINS)
    counts = table_of(member, bins, shape)
    count = counts.sum(axis=0)
    mean = np.bincount(bins, gaps, ECE_BINS) / np.maximum(count, 1)
    centred = gaps - mean[bins]
    of_groups = (table_of(member, bins, shape, centred) ** 2).sum(axis=0)
    of_documents = np.bincount(bins, centred**2, ECE_BINS)
    pairs = count**2 - (counts**2).sum(axis=0)
    usable = pairs > 0
    count = count[usable]
    # The factors undo the downward bias of sums of squares about the bin's own mean.
    together = float((of_groups[usable] * count**2 / pairs[usable]).sum())
    alone = float((of_documents[usable] * count / (count - 1)).sum())
    return max(together / alone, 1.0) if alone > 0 else 1.0


def expected_ece(sums: Array, effects: Array) -> Array:
    """The mean of `ece_of_sums` for a calibrated model with the same confidences.

    The accuracy of a bin is then a binomial proportion at the bin's mean confidence. The bin adds
    its share of the documents times the mean absolute deviation of this proportion, for which De
    Moivre gave a closed form (Diaconis and Zabell, Statistical Science 6, 1991, equation 1.1).

    Args:
        sums: ``[..., bin, (count, confidence, correct)]``.
        effects: Design effects, ``[...]``; a bin's number of documents is divided by them.
    """
    from scipy.stats import binom

    count = sums[..., 0]
    p = sums[..., 1] / np.maximum(count, 1)
    n = _independent(count, effects[..., None])
    above = np.minimum(np.floor(n * p) + 1, n)
    deviation = 2 * above * (1 - p) * binom.pmf(above, n, p) / n
    expected: Array = (count * deviation).sum(axis=-1) / count.sum(axis=-1)
    return expected


def calibrated_band(sums: Array, effect: float) -> tuple[Array, Array]:
    """Ranges that contain the bins' accuracy with probability 0.95 or more for a calibrated model.

    Args:
        sums: ``[bins, (count, confidence, correct)]``.
        effect: Design effect; a bin's number of documents is divided by it.

    Returns:
        Lower and upper ends, ``[bins]`` each: the 0.025 and 0.975 quantiles of a binomial
        proportion at the bin's mean confidence.
    """
    from scipy.stats import binom

    n = _independent(sums[..., 0], effect)
    p = sums[..., 1] / np.maximum(sums[..., 0], 1)
    low, high = (binom.ppf(tail, n, p) / n for tail in (0.025, 0.975))
    return low, high


def _independent(count: Array, effect: Array | float) -> Array:
    """The number of independent documents with the same information, at least 1."""
    documents: Array = np.maximum(np.round(count / effect), 1)
    return documents
