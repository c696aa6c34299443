"""How far raters agree: Krippendorff's alpha, and each one held against all others.

Alpha is ordinal (K. Krippendorff, Content Analysis, chapter on reliability), over the five
labels, to which the rescaled scores are rounded half up: a level must mean the same to every
coder. Of a scale of 1 to 4 the scores are then the levels 1, 2, 4, 5. Left unrounded, such a
coder could only ever agree with one of a scale of 1 to 5 at the ends, and alpha would measure
the scales. Yet the level 3 is out of its reach, so mixed scales keep alpha below 1 for the best
of raters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regreason_plugin.annotate.scores import (
    HIGHEST,
    LOWEST,
    Coder,
    Floats,
    ScoreTable,
    to_labels,
)
from regreason_plugin.core.paper import AXES
from regreason_plugin.metrics.count_formulas import qwk_of_tables

Ints = npt.NDArray[np.int_]
LEVELS = np.arange(LOWEST, HIGHEST + 1)
ALL = "all"


@dataclass(frozen=True)
class Alpha:
    """Alpha among some coders.

    Attributes:
        among: Which, in words.
        coders: How many.
        by_axis: By axis, and under ``all`` over all of them; None where it is not defined: no
            row with two scores, or all scores the same.
    """

    among: str
    coders: int
    by_axis: dict[str, float | None]


@dataclass(frozen=True)
class LeftOut:
    """One rater and prompt against the mean of all other scores of the same row.

    Attributes:
        coder: The rater and its prompt.
        rows: With its score and another.
        bias: Mean of its score less the others' mean; above 0 it is milder than they are.
        mae: Mean of that difference's size, in labels.
        exact: Share of rows where both round to the same label.
        qwk: Cohen's kappa with quadratic weights of the two labels; None where one is constant.
    """

    coder: Coder
    rows: int
    bias: float
    mae: float
    exact: float
    qwk: float | None


@dataclass(frozen=True)
class Agreement:
    """Among the raters of a ratings file; rows are conversations x axes."""

    rows: int
    alphas: list[Alpha]
    left_out: list[LeftOut]


def agreement(table: ScoreTable) -> Agreement:
    """Compute all of it; the same numbers in whatever order the rows came."""
    coders = table.coders
    parts = {
        axis: table.matrix(setting for setting in table.settings if setting[1] == axis)
        for axis in AXES
    }
    raters = sorted({coder.rater for coder in coders})
    of = {rater: [n for n, coder in enumerate(coders) if coder.rater == rater] for rater in raters}
    alphas = [_alpha("all raters x prompts", parts)]
    if 1 < len(raters) < len(coders):
        means = {
            axis: np.column_stack([_mean(part[:, of[rater]]) for rater in raters])
            for axis, part in parts.items()
        }
        alphas.append(_alpha("raters, by their means", means))
    for rater in raters if len(raters) > 1 else []:
        if len(of[rater]) > 1:
            own = {axis: part[:, of[rater]] for axis, part in parts.items()}
            alphas.append(_alpha(f"prompts of {rater}", own))
    scores = np.concatenate(list(parts.values()))
    left_out = [_left_out(coder, n, scores) for n, coder in enumerate(coders)]
    return Agreement(len(scores), alphas, [one for one in left_out if one is not None])


def _alpha(among: str, parts: dict[str, Floats]) -> Alpha:
    by_axis = {axis: krippendorff_alpha(part) for axis, part in parts.items() if len(part)}
    whole = np.concatenate(list(parts.values()))
    by_axis[ALL] = krippendorff_alpha(whole)
    return Alpha(among, whole.shape[1], by_axis)


def krippendorff_alpha(scores: Floats) -> float | None:
    """Ordinal alpha over the five labels.

    Args:
        scores: [rows, coders] on 1 to 5, NaN where there is none.
    """
    counts = (to_labels(scores)[:, :, None] == LEVELS).sum(axis=1)
    counts = counts[counts.sum(axis=1) >= 2]
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        return None
    # (Data without raters' scores is built without the package.)
    from krippendorff import alpha

    value = alpha(value_counts=counts, value_domain=LEVELS, level_of_measurement="ordinal")
    return float(value)


def quadratic_kappa(labels: Ints, others: Ints) -> float | None:
    """Cohen's kappa with quadratic weights; None where either is constant."""
    if len(np.unique(labels)) < 2 or len(np.unique(others)) < 2:
        return None
    levels = len(LEVELS)
    places = (labels - LOWEST) * levels + (others - LOWEST)
    seen = np.bincount(places, minlength=levels**2).reshape(levels, levels)
    return float(qwk_of_tables(seen.astype(np.float64)))


def _left_out(coder: Coder, number: int, scores: Floats) -> LeftOut | None:
    others = _mean(np.delete(scores, number, axis=1))
    own = scores[:, number]
    both = ~np.isnan(own) & ~np.isnan(others)
    if not both.any():
        return None
    own, others = own[both], others[both]
    difference = own - others
    label, other = to_labels(own).astype(int), to_labels(others).astype(int)
    return LeftOut(
        coder,
        rows=len(own),
        bias=float(difference.mean()),
        mae=float(np.abs(difference).mean()),
        exact=float((label == other).mean()),
        qwk=quadratic_kappa(label, other),
    )


def _mean(scores: Floats) -> Floats:
    """Mean of each row's scores; NaN where it has none."""
    known = ~np.isnan(scores)
    count = known.sum(axis=1)
    total = np.where(known, scores, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(scores), np.nan), where=count > 0))
