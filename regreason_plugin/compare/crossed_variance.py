"""How sure a difference is, when seeds are crossed with documents that come in groups.

Two arms are scored on the same documents, with the same seeds. Documents of one group (a
conversation's axes, answers to one question) are alike, and every seed meets every document, so
neither the documents of a group nor the seeds are as many independent observations as there are
numbers. What a seed's difference owes to each group is its influence: for a mean the group's
linearised share, for another statistic what the jackknife finds. With e = value + influence, one
a seed and group, the model is

    e[s, g] = mean + seed[s] + group[g] + rest[s, g]

and the variance of the mean over S seeds and G groups is that of a two-way random-effects table,

    (MS_seed - MS_rest)+ / (S G) + (MS_group - MS_rest)+ / (S G) + MS_rest / (S G)

with ()+ for components that come out negative (Searle, Casella and McCulloch, Variance Components,
1992, section 4.4), and Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). Without
negative components it is s2_seed / S + s2_group / G - s2_rest / (S G).

Fewer than three seeds say too little of seeds: groups are then drawn again, and what is found
speaks of these trained models only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.metrics.answers import Array

ENOUGH_SEEDS = 3
# A statistic that is undefined in more of the draws than this has no interval.
MOST_UNDEFINED = 0.01


class Table(NamedTuple):
    """A two-way table's size and its mean squares."""

    seeds: int
    groups: int
    of_seed: float
    of_group: float
    rest: float


@dataclass(frozen=True)
class Estimate:
    """A difference. What is undefined is NaN.

    Attributes:
        value: The mean over seeds.
        se: Its standard error.
        low: Lower end of the interval.
        high: Upper end.
        p: Two-sided, against a difference of zero.
        df: Degrees of freedom of the t interval; None of a bootstrap, or where nothing varies.
        over: What it speaks of: ``seeds and groups``, or ``groups`` for these trained models only.
        table: What its standard error is made from; None where ``df`` is.
    """

    value: float
    se: float
    low: float
    high: float
    p: float
    df: float | None
    over: Literal["seeds and groups", "groups"]
    table: Table | None = None


def crossed(values: Array, influence: Array, *, level: float = 0.95) -> Estimate:
    """A t interval over seeds and groups.

    Args:
        values: The arm's statistic minus the baseline's, of models that share the seed,
            ``[seeds]``.
        influence: The same difference of their influences, ``[seeds, groups]``.
        level: Of the interval.

    Raises:
        ValueError: Fewer than three seeds or two groups: nothing can be said of how they vary.
    """
    from scipy.special import stdtr, stdtrit

    seeds, groups = influence.shape
    if seeds < ENOUGH_SEEDS or groups < 2:
        raise ValueError("an interval needs three seeds and two groups of documents or more")
    value = float(values.mean())
    squares = mean_squares(values[None], influence[None])[:, 0, 0]
    variance, df = (float(x) for x in variance_of_mean(squares, seeds, groups))
    if variance == 0:
        # Every seed and group differs by the same amount, as a model and its copy do by none.
        return Estimate(value, 0.0, value, value, float(value == 0), None, "seeds and groups")
    se = variance**0.5
    half = float(stdtrit(df, (1 + level) / 2)) * se
    p = float(2 * stdtr(df, -abs(value) / se))
    table = Table(seeds, groups, *(float(square) for square in squares))
    return Estimate(value, se, value - half, value + half, p, df, "seeds and groups", table)


def mean_squares(values: Array, influence: Array) -> Array:
    """The mean squares of a two-way table, and mean products of several.

    Args:
        values: ``[statistics, seeds]``.
        influence: ``[statistics, seeds, groups]``, whose rows average zero.

    Returns:
        ``[3, statistics, statistics]``: symmetric matrices for seeds, groups and the rest, with
        the mean squares on their diagonals; c' M c is the mean square of the combination c.
    """
    _, seeds, groups = influence.shape
    by_seed = values - values.mean(axis=1, keepdims=True)
    by_group = influence.mean(axis=1)
    rest = (influence - by_group[:, None]).reshape(len(values), -1)
    return np.stack(
        [
            by_seed @ by_seed.T * groups / (seeds - 1),
            by_group @ by_group.T * seeds / (groups - 1),
            rest @ rest.T / ((seeds - 1) * (groups - 1)),
        ]
    )


def variance_of_mean(squares: Array, seeds: int, groups: int) -> tuple[Array, Array]:
    """The variance of a mean over seeds and groups, and its degrees of freedom.

    Args:
        squares: The mean squares of seeds, groups and the rest, ``[3, ...]``.
        seeds: How many.
        groups: How many.

    Returns:
        Variance and degrees of freedom, ``[...]``; the latter NaN where nothing varies.
    """
    of_seed, of_group, rest = squares
    df_seed, df_group = seeds - 1, groups - 1
    whole = of_seed + of_group - rest
    spread = of_seed**2 / df_seed + of_group**2 / df_group + rest**2 / (df_seed * df_group)
    # A negative component is none: the larger mean square is the variance of what is left.
    truncated = (of_seed <= rest) | (of_group <= rest)
    larger = np.maximum(of_seed, of_group)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(
            truncated, np.where(of_group >= of_seed, df_group, df_seed), whole**2 / spread
        )
    variance = np.where(truncated, larger, whole) / (seeds * groups)
    return variance, np.where(variance > 0, df, np.nan)


def bootstrapped(value: float, draws: Array, influence: Array, *, level: float = 0.95) -> Estimate:
    """A percentile interval over groups, for these trained models.

    Its ends are the draws of B whose ranks are (B + 1) (1 - level) / 2 from either end (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, chapter 5), so that it excludes zero
    exactly where ``p <= 1 - level``, unless there are too few draws for such a rank.

    Args:
        value: The difference, of the seeds' mean.
        draws: The same with groups drawn again, ``[draws]``. Draws in which it is undefined (NaN)
            are left out; where they are more than 1 %, the interval and p are NaN.
        influence: For the standard error, ``[seeds, groups]``.
        level: Of the interval.

    Raises:
        ValueError: There is one group only.
    """
    groups = influence.shape[1]
    if groups < 2:
        raise ValueError("an interval needs two groups of documents or more")
    se = float(np.sqrt((influence.mean(axis=0) ** 2).sum() / (groups * (groups - 1))))
    known = np.sort(draws[~np.isnan(draws)])
    count = len(known)
    if np.isnan(value) or len(draws) - count > MOST_UNDEFINED * len(draws) or count == 0:
        return Estimate(value, se, np.nan, np.nan, np.nan, None, "groups")
    # The small number makes up for 1 - 0.95 being no 0.05.
    rank = max(int((count + 1) * (1 - level) / 2 + 1e-9), 1)
    tail = 1 + min(int((known <= 0).sum()), int((known >= 0).sum()))
    p = min(1.0, 2 * tail / (count + 1))
    return Estimate(value, se, float(known[rank - 1]), float(known[-rank]), p, None, "groups")


def group_weights(
    strata: NDArray[np.int64], draws: int, seed: int, block: int = 250
) -> Iterator[NDArray[np.float32]]:
    """How often each group comes when as many are drawn again, with replacement, in each stratum.

    Args:
        strata: The stratum of each group, numbered from 0 without gaps, ``[groups]``.
        draws: How many.
        seed: The same seed gives the same draws, whatever the block.
        block: Draws at a time.

    Yields:
        ``[block, groups]``; the last may be shorter.
    """
    random = np.random.default_rng(seed)
    sizes = np.bincount(strata)
    ends = np.cumsum(sizes)
    # Drawn stratum by stratum; then back in the groups' order.
    place = np.empty(len(strata), dtype=np.int64)
    place[np.argsort(strata, kind="stable")] = np.arange(len(strata))
    in_order = bool((np.diff(strata) >= 0).all())
    for start in range(0, draws, block):
        weights = np.empty((min(block, draws - start), len(strata)), dtype=np.float32)
        for row in weights:
            for size, end in zip(sizes, ends, strict=True):
                drawn = random.integers(0, size, size)
                row[end - size : end] = np.bincount(drawn, minlength=size)
        yield weights if in_order else weights[:, place]


def mcnemar(differences: Array) -> float:
    """McNemar's exact p: whether one arm is right where the other is wrong more often.

    Args:
        differences: -1, 0 or 1 a document, of independent documents and one model an arm.
    """
    from scipy.stats import binomtest

    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
