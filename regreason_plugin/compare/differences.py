"""From an estimate to what is printed of a difference: effect, power, corrected p."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

from regreason_plugin.compare.comparison import Comparison, Difference, Interval
from regreason_plugin.compare.crossed_variance import Estimate, mcnemar
from regreason_plugin.compare.detectable import detectable
from regreason_plugin.compare.estimates import Estimates, Models
from regreason_plugin.compare.task_scores import TaskScores


def interval_of(estimate: Estimate | None) -> Interval:
    """What is known of a figure; null where it is not finite."""
    if estimate is None:
        return Interval(value=None)
    return Interval(value=estimate.value, low=_finite(estimate.low), high=_finite(estimate.high))


def difference_of(
    metric: str,
    estimate: Estimate | None,
    models: Models,
    scores: TaskScores | None,
    estimates: Estimates,
) -> Difference:
    """All that is said of one difference, but for what depends on the others.

    Args:
        metric: Its name.
        estimate: The difference.
        models: The pairs.
        scores: Of the setting; None where it is pooled.
        estimates: Of all settings.
    """
    if estimate is None:
        return Difference(value=None)
    known = math.isfinite(estimate.se)
    return Difference(
        **interval_of(estimate).model_dump(),
        se=_finite(estimate.se),
        df=estimate.df,
        p=_finite(estimate.p),
        mcnemar_p=_mcnemar(models, scores) if metric == "acc" else None,
        effect=_effect(metric, models, scores, estimates),
        detectable=_finite(detectable(estimate)) if known else None,
        over=estimate.over if known else None,
    )


def holm(found: Sequence[tuple[Difference, dict[str, Difference], str]]) -> None:
    """Put Holm's correction over a family of differences in their places.

    Args:
        found: Each with the dictionary and the key that it stands under.
    """
    from statsmodels.stats.multitest import multipletests

    known = [(one, place, key) for one, place, key in found if one.p is not None]
    if not known:
        return
    # (It collects garbage at every call, which takes long beside so many objects.)
    gc.freeze()
    corrected = multipletests([one.p for one, _, _ in known], method="holm")[1]
    gc.unfreeze()
    for (one, place, key), p in zip(known, corrected, strict=True):
        place[key] = one.model_copy(update={"p_holm": float(p)})


def _mcnemar(models: Models, scores: TaskScores | None) -> float | None:
    """Exact, where it holds: one seed, no two documents of a group."""
    if scores is None or len(models.of) > 1 or len(scores.sums.groups) < len(scores.ids):
        return None
    correct = scores.values["acc"]
    return mcnemar((correct[models.of[0]] - correct[models.minus[0]]).astype(np.float64))


def _effect(
    metric: str, models: Models, scores: TaskScores | None, estimates: Estimates
) -> float | None:
    """Cohen's h of two accuracies; of other means the documents' mean difference over its spread.

    Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd edition, 1988: h in
    section 6.2, the standardised mean of paired differences (his d_z) in section 2.3.5.
    """
    if metric == "acc":
        place = None if scores is None else estimates.tasks.index(scores)
        ours, base = (
            float(estimates.statistic("acc", Models(side), place).values.mean())
            for side in (models.of, models.minus)
        )
        return 2 * math.asin(math.sqrt(ours)) - 2 * math.asin(math.sqrt(base))
    if scores is None or metric not in scores.values:
        return None
    values = scores.values[metric].astype(np.float64)
    by_document = values[list(models.of)].mean(axis=0) - values[list(models.minus)].mean(axis=0)
    by_document = by_document[np.isfinite(by_document)]
    spread = float(by_document.std(ddof=1)) if len(by_document) > 1 else 0.0
    return float(by_document.mean()) / spread if spread > 0 else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def rounded(comparison: Comparison) -> Comparison:
    """The same with nine significant digits: what lies beyond depends on the machine."""
    return Comparison.model_validate(_rounded(comparison))


def _rounded(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _rounded(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.9g}")
    return value
