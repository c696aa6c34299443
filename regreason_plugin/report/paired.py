"""How sure a mean difference is, when seeds are crossed with documents that come in groups.

Two arms are scored on the same documents, with the same seeds. Documents of one group (a
conversation's axes, answers to one question) are alike, and every seed meets every document, so
neither the documents of a group nor the seeds are as many independent observations as there are
numbers. With e the differences a seed and group, linearised for unequal groups, the model is

    e[s, g] = seed[s] + group[g] + rest[s, g]

and the variance of the mean over S seeds and G groups is that of a two-way random-effects table,

    (MS_seed - MS_rest)+ / (S G) + (MS_group - MS_rest)+ / (S G) + MS_rest / (S G)

with ()+ for components that come out negative (Searle, Casella and McCulloch, Variance Components,
1992, section 4.4), and Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). Without
negative components it is s2_seed / S + s2_group / G - s2_rest / (S G).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ENOUGH_SEEDS = 3
DRAWS = 10_000
_BLOCK = 500


@dataclass(frozen=True)
class Estimate:
    """A mean difference.

    Attributes:
        value: The mean over seeds and documents.
        se: Its standard error.
        low: Lower end of the interval.
        high: Upper end.
        p: Two-sided, against a difference of zero; None from a bootstrap.
        df: Degrees of freedom of the t interval; None of a bootstrap.
        over: What it speaks of: ``seeds and groups``, or ``groups`` for these trained models only.
    """

    value: float
    se: float
    low: float
    high: float
    p: float | None
    df: float | None
    over: str


def mean_difference(
    differences: Array, groups: NDArray[np.int64], *, level: float = 0.95, seed: int = 0
) -> Estimate:
    """The mean of paired differences with its interval.

    Args:
        differences: One a seed and document, ``[seeds, documents]``: the arm's score minus the
            baseline's, of models that share the seed.
        groups: The group of each document, numbered from 0 without gaps, ``[documents]``.
        level: Of the interval.
        seed: Of the bootstrap, which is used with fewer than three seeds.

    Returns:
        A t interval over seeds and groups, or with fewer than three seeds a percentile bootstrap
        over groups, which speaks of these trained models only.

    Raises:
        ValueError: Fewer than two groups: nothing can be said of how they vary.
    """
    seeds = differences.shape[0]
    totals = group_totals(differences, groups)
    sizes = np.bincount(groups).astype(np.float64)
    if len(sizes) < 2:
        raise ValueError("an interval needs two groups of documents or more")
    if seeds < ENOUGH_SEEDS:
        return _bootstrap(totals.mean(axis=0), sizes, level, seed)
    return _crossed(totals, sizes, level)


def group_totals(values: Array, groups: NDArray[np.int64]) -> Array:
    """Sums by group, ``[seeds, groups]``, of values ``[seeds, documents]``."""
    count = int(groups.max()) + 1
    return np.stack([np.bincount(groups, row, minlength=count) for row in values])


def _crossed(totals: Array, sizes: Array, level: float) -> Estimate:
    from scipy.stats import t

    seeds, count = totals.shape
    value = float(totals.sum() / (seeds * sizes.sum()))
    # A group counts by its documents: what it adds to the mean beyond its size's share.
    e = (totals - value * sizes) * count / sizes.sum()
    by_seed, by_group, mean = e.mean(axis=1, keepdims=True), e.mean(axis=0, keepdims=True), e.mean()
    ms_seed = count * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    ms_group = seeds * float(((by_group - mean) ** 2).sum()) / (count - 1)
    ms_rest = float(((e - by_seed - by_group + mean) ** 2).sum()) / ((seeds - 1) * (count - 1))
    terms = [(ms_seed, seeds - 1), (ms_group, count - 1), (-ms_rest, (seeds - 1) * (count - 1))]
    if ms_seed < ms_rest or ms_group < ms_rest:
        # A negative component is none: the larger mean square is the variance of what is left.
        terms = [max(terms[:2])]
    scale = 1 / (seeds * count)
    variance = scale * sum(ms for ms, _ in terms)
    if variance <= 0:
        # Every seed and group differs by the same amount, as a model and its copy do by none.
        return Estimate(value, 0.0, value, value, float(value == 0), None, "seeds and groups")
    df = variance**2 / sum((scale * ms) ** 2 / freedom for ms, freedom in terms)
    se = float(np.sqrt(variance))
    half = float(t.ppf((1 + level) / 2, df)) * se
    p = float(2 * t.sf(abs(value) / se, df))
    return Estimate(value, se, value - half, value + half, p, float(df), "seeds and groups")


def _bootstrap(totals: Array, sizes: Array, level: float, seed: int) -> Estimate:
    """Groups drawn with replacement; the mean over the documents that come with them."""
    random = np.random.default_rng(seed)
    count = len(sizes)
    means = np.empty(DRAWS)
    for start in range(0, DRAWS, _BLOCK):
        drawn = random.integers(0, count, (min(_BLOCK, DRAWS - start), count))
        means[start : start + len(drawn)] = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    value = float(totals.sum() / sizes.sum())
    return Estimate(value, float(means.std(ddof=1)), float(low), float(high), None, None, "groups")
