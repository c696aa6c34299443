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
from regreason_plugin.metrics.count_formulas import table_of
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


def miscalibration(confidences: Array, correct: Array, member: Integers) -> Statistic:
    """The squared gap between confidence and accuracy in percent, without the bias of chance.

    It is 1 where confidence and accuracy are ten points apart in every bin, 0.01 for one point.
    In a bin, the mean of gap times gap over all pairs of documents of different groups estimates
    the square of the mean gap without bias, where groups are independent: a U-statistic. Bins
    count by their share of the documents. Of groups of one document it is the debiased squared
    calibration error of Kumar, Liang and Ma (Verified Uncertainty Calibration, NeurIPS 2019,
    section 4), and the bias-corrected reliability of the Brier score of Broecker (Climate Dynamics
    39, 2012) and of Ferro and Fricker (Quarterly Journal of the Royal Meteorological Society 138,
    2012). It is below zero where the gaps are smaller than chance would make them. A bin with a
    single group has no such pair and adds nothing, so that gaps in thin bins are understated.

    The influences are those of the jackknife. They all but vanish where a calibrated model's
    estimate is by chance at its lowest, or its answers are all right; so they are raised until
    their variance is at least that of the estimate of a calibrated model with these confidences.

    Args:
        confidences: ``[N]``.
        correct: 1 where the prediction is right, else 0, ``[N]``.
        member: The place of each document's group, from 0 without gaps, ``[N]``.

    Returns:
        Of one model: ``[1]`` and ``[1, G]``; NaN where no bin holds two groups.
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
    # (What is smaller yet is a rounding error: all gaps are the same.)
    if 1e-12 * least < variance < least:
        influence = influence * (least / variance) ** 0.5
    return Statistic(100 * value[None], influence)


def variance_if_calibrated(confidences: Array, correct: Array, member: Integers) -> float:
    """The variance of `miscalibration` if the model were calibrated, with the same confidences.

    Of a U-statistic without a true gap it is twice the sum over pairs of groups of the product of
    their variances (Hoeffding, Annals of Mathematical Statistics 19, 1948, section 5).

    Args:
        confidences: As `miscalibration`.
        correct: As `miscalibration`, for the design effect.
        member: As `miscalibration`.
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


def design_effect(gaps: Array, bins: Integers, member: Integers) -> float:
    """How many times the variance of the bins' accuracy is that of independent documents.

    Documents of a group, and a document's answers by several seeds, are right or wrong together.
    The effect is estimated over all bins as the variance of the groups' summed gaps over that of
    the documents' gaps, both about the bin's mean (Kish, Survey Sampling, 1965, section 5.4).

    Args:
        gaps: Confidence minus whether it is right, ``[N]``.
        bins: The bin of each, ``[N]``.
        member: The place of each one's group, from 0, ``[N]``.

    Returns:
        1 or more; 1 where no bin holds two groups.
    """
    shape = (int(member.max(initial=0)) + 1, ECE_BINS)
    counts = table_of(member, bins, shape)
    count = counts.sum(axis=0)
    mean = np.bincount(bins, gaps, ECE_BINS) / np.maximum(count, 1)
    centred = gaps - mean[bins]
    of_groups = (table_of(member, bins, shape, centred) ** 2).sum(axis=0)
    of_documents = np.bincount(bins, centred**2, ECE_BINS)
    pairs = count**2 - (counts**2).sum(axis=0)
    told = pairs > 0
    count = count[told]
    # What the bin's own mean takes from either sum of squares is put back.
    together = float((of_groups[told] * count**2 / pairs[told]).sum())
    alone = float((of_documents[told] * count / (count - 1)).sum())
    return max(together / alone, 1.0) if alone > 0 else 1.0


def expected_ece(sums: Array, effects: Array) -> Array:
    """What `ece_of_sums` is on average of a calibrated model with the same confidences.

    A bin of n documents adds its share times the mean absolute deviation of their accuracy, that
    of a binomial share at the bin's mean confidence: De Moivre's closed form (Diaconis and Zabell,
    Statistical Science 6, 1991, equation 1.1).

    Args:
        sums: ``[..., bin, (count, confidence, correct)]``.
        effects: The design effect of each, ``[...]``: so many documents count as one.
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
    """Where the bins' accuracy lies with a probability of 0.95 or more, if a model is calibrated.

    Args:
        sums: ``[bins, (count, confidence, correct)]``.
        effect: The design effect: so many documents count as one.

    Returns:
        Lower and upper ends, ``[bins]``: a binomial share's quantiles at the bin's mean confidence.
    """
    from scipy.stats import binom

    n = _independent(sums[..., 0], effect)
    p = sums[..., 1] / np.maximum(sums[..., 0], 1)
    low, high = (binom.ppf(tail, n, p) / n for tail in (0.025, 0.975))
    return low, high


def _independent(count: Array, effect: Array | float) -> Array:
    """As many independent documents say as much; one at least."""
    documents: Array = np.maximum(np.round(count / effect), 1)
    return documents
