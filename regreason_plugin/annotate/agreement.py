"""Agreement among raters: Krippendorff's alpha, and each rater compared with all others.

Alpha is ordinal (K. Krippendorff, Content Analysis, chapter on reliability). It is computed over
the five labels: every score is rescaled to 1 to 5 and rounded half up, so that a level means the
same to every coder. Scores on a scale of 1 to 4 become the levels 1, 2, 4 and 5. Without
rounding, a coder on that scale could agree with a coder on a scale of 1 to 5 only at the two
ends, and alpha would measure the difference between the scales. With rounding, a coder on 1 to 4
still never gives level 3, so alpha stays below 1 on mixed scales even for perfect raters.
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
        among: Description of the coders, in words.
        coders: Number of coders.
        by_axis: Alpha by axis, and under ``all`` over all axes together. None where alpha is
            undefined: no row has two scores, or all scores are equal.
    """

    among: str
    coders: int
    by_axis: dict[str, float | None]


@dataclass(frozen=True)
class LeftOut:
    """One coder's scores compared with the mean of all other scores of the same row.

    Attributes:
        coder: The rater and its prompt.
        rows: Number of rows that have this coder's score and at least one other score.
        bias: Mean of (this coder's score - the others' mean), in labels; positive if this coder
            scores higher than the others.
        mae: Mean absolute difference between this coder's score and the others' mean, in labels.
        exact: Share of rows in which the coder's score and the others' mean round to the same
            label.
        qwk: Cohen's kappa with quadratic weights between the two rounded labels; None where
            either of them is constant.
    """

    coder: Coder
    rows: int
    bias: float
    mae: float
    exact: float
    qwk: float | None


@dataclass(frozen=True)
class Agreement:
    """Agreement among the raters of a ratings file.

    Attributes:
        rows: Number of conversations x axes.
        alphas: Alpha among all coders, among the raters' means, and among each rater's prompts.
        left_out: One comparison per coder.
    """

    rows: int
    alphas: list[Alpha]
    left_out: list[LeftOut]


def agreement(table: ScoreTable) -> Agreement:
    """Compute the agreement among all coders of a table; the order of its rows does not matter."""
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
    """Ordinal alpha over the five labels; None where alpha is undefined.

    Args:
        scores: [rows, coders], scores from 1 to 5, NaN where a score is missing.
    """
    counts = (to_labels(scores)[:, :, None] == LEVELS).sum(axis=1)
    counts = counts[counts.sum(axis=1) >= 2]
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        return None
    # Imported here because `build` does not need the package for data without raters' scores.
    from krippendorff import alpha

    value = alpha(value_counts=counts, value_domain=LEVELS, level_of_measurement="ordinal")
    return float(value)


def quadratic_kappa(labels: Ints, others: Ints) -> float | None:
    """Cohen's kappa with quadratic weights; None where either list of labels is constant."""
    if len(np.unique(labels)) < 2 or len(np.unique(others)) < 2:
        return None
    levels = len(LEVELS)
    cells = (labels - LOWEST) * levels + (others - LOWEST)
    counts = np.bincount(cells, minlength=levels**2).reshape(levels, levels)
    return float(qwk_of_tables(counts.astype(np.float64)))


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
    """Mean of each row's scores; NaN for a row without scores."""
    known = ~np.isnan(scores)
    count = known.sum(axis=1)
    total = np.where(known, scores, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(scores), np.nan), where=count > 0))
