"""The tests of a comparison: each arm's differences to the baseline, and what follows from them."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Sequence

import numpy as np

from regreason_plugin.compare.arms import Arms, Models
from regreason_plugin.compare.comparison import Difference, Gap, Needed, Wins
from regreason_plugin.compare.crossed_variance import mcnemar
from regreason_plugin.compare.detectable import detectable, needed
from regreason_plugin.compare.estimates import Estimates, interval_of
from regreason_plugin.compare.fieller import fieller

# An arm and the place of a task; None for all tasks together.
ArmAndTask = tuple[str, int | None]


def differences(
    estimates: Estimates, arms: Arms, tasks: Sequence[int | None]
) -> dict[ArmAndTask, dict[str, Difference]]:
    """Every metric's difference of every arm, corrected over arms and tasks.

    Args:
        estimates: Of all settings.
        arms: Which models they are of.
        tasks: Places of tasks, or None for the mean over all.
    """
    found: dict[ArmAndTask, dict[str, Difference]] = {}
    for metric in estimates.metrics:
        family = {
            (name, task): _difference(estimates, metric, arms.against(name), task)
            for name in arms.others
            for task in tasks
        }
        for place, one in _with_holm(family).items():
            found.setdefault(place, {})[metric] = one
    return found


def _difference(estimates: Estimates, metric: str, models: Models, task: int | None) -> Difference:
    """All that is said of one difference, but for what depends on the others."""
    estimate = estimates.estimate(metric, models, task)
    if estimate is None:
        return Difference(value=None)
    known = math.isfinite(estimate.se)
    return Difference(
        **interval_of(estimate).model_dump(),
        se=_finite(estimate.se),
        df=estimate.df,
        p=_finite(estimate.p),
        mcnemar_p=_mcnemar(estimates, models, task) if metric == "acc" else None,
        effect=_effect(estimates, metric, models, task),
        detectable=_finite(detectable(estimate)) if known else None,
        over=estimate.over if known else None,
    )


def _with_holm(family: dict[ArmAndTask, Difference]) -> dict[ArmAndTask, Difference]:
    """The same with Holm's correction."""
    from statsmodels.stats.multitest import multipletests

    known = {place: one for place, one in family.items() if one.p is not None}
    if not known:
        return family
    # (It collects garbage at every call, which takes long beside so many objects.)
    gc.freeze()
    corrected = multipletests([one.p for one in known.values()], method="holm")[1]
    gc.unfreeze()
    return family | {
        place: one.model_copy(update={"p_holm": float(p)})
        for (place, one), p in zip(known.items(), corrected, strict=True)
    }


def _mcnemar(estimates: Estimates, models: Models, task: int | None) -> float | None:
    """Exact, where it holds: one seed, no two documents of a group."""
    if task is None or len(models.of) > 1:
        return None
    scores = estimates.tasks[task]
    if len(scores.sums.groups) < len(scores.ids):
        return None
    correct = scores.values["acc"]
    return mcnemar((correct[models.of[0]] - correct[models.minus[0]]).astype(np.float64))


def _effect(estimates: Estimates, metric: str, models: Models, task: int | None) -> float | None:
    """Cohen's h of two accuracies; of other means the documents' mean difference over its spread.

    Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd edition, 1988: h in
    section 6.2, the standardised mean of paired differences (his d_z) in section 2.3.5.
    """
    if metric == "acc":
        ours, base = (
            float(estimates.statistic("acc", Models(side), task).values.mean())
            for side in (models.of, models.minus)
        )
        return 2 * math.asin(math.sqrt(ours)) - 2 * math.asin(math.sqrt(base))
    if task is None or metric not in estimates.tasks[task].values:
        return None
    values = estimates.tasks[task].values[metric].astype(np.float64)
    by_document = values[list(models.of)].mean(axis=0) - values[list(models.minus)].mean(axis=0)
    by_document = by_document[np.isfinite(by_document)]
    spread = float(by_document.std(ddof=1)) if len(by_document) > 1 else 0.0
    return float(by_document.mean()) / spread if spread > 0 else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def wins(accuracies: Iterable[Difference]) -> Wins:
    """In how many settings an arm's accuracy is higher."""
    values = [one.value or 0.0 for one in accuracies]
    return Wins(
        # What cancels out over seeds is a tie, not a win by a rounding error.
        wins=sum(value > 1e-12 for value in values),
        ties=sum(abs(value) <= 1e-12 for value in values),
        losses=sum(value < -1e-12 for value in values),
        of=len(values),
    )


def needed_for(estimates: Estimates, models: Models, difference: float) -> Needed:
    """What finding a difference in pooled accuracy would take."""
    values, influence = estimates.statistic("acc", models)
    groups = seeds = None
    if influence.shape[1] > 1:
        groups, seeds = needed(values, influence, difference)
    return Needed(difference=difference, groups=groups, seeds=seeds)


def gaps(estimates: Estimates, arms: Arms, whole: str) -> dict[str, Gap]:
    """Which share of one arm's gain in pooled accuracy each other arm keeps."""
    found = {}
    for name in arms.others:
        pairs = arms.shared_pairs(name, whole)
        if name == whole or not pairs[0].of:
            continue
        parts = [estimates.statistic("acc", models) for models in pairs]
        values = np.stack([part.values for part in parts])
        influence = np.stack([part.influence for part in parts])
        if influence.shape[2] > 1:
            found[name] = fieller(values, influence)
    return found
