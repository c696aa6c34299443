"""The tests of a comparison: every difference between arms, and the finding that it supports.

One question is primary and is tested without a correction. All other tests that may lead to a claim
form one family, corrected together by Holm's method (Scandinavian Journal of Statistics 6, 1979).
The primary test is their gatekeeper: the family makes claims only if the primary test rejects. If
there is no true difference, a page therefore makes a claim no more often than the primary test errs
(Westfall and Krishen, Journal of Statistical Planning and Inference 99, 2001). All other figures
are exploratory.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from regreason_plugin.comparison.arms import Arms, Models
from regreason_plugin.comparison.comparison import (
    Contrast,
    Detectable,
    Difference,
    Finding,
    Gap,
    Needed,
    Primary,
    Wins,
)
from regreason_plugin.comparison.crossed_variance import Estimate
from regreason_plugin.comparison.detectable import detectable, needed
from regreason_plugin.comparison.estimates import Estimates, interval_of
from regreason_plugin.comparison.fieller import fieller
from regreason_plugin.metrics.answers import Array
from regreason_plugin.metrics.metric_names import CALIBRATED_METRICS, FORCED, OTHER_ACTIVATIONS

ALPHA = 0.05
_EXPLORATORY = {
    *(f"{prefix}{name}_mid" for name in OTHER_ACTIVATIONS for prefix in ("", FORCED)),
    *CALIBRATED_METRICS,
}


@dataclass(frozen=True)
class Differences:
    """All differences, with the findings of the corrected tests.

    Attributes:
        by_setting: Differences of each arm to the baseline: by arm, index of the setting, and
            metric.
        pooled: Differences of each arm to the baseline pooled over all settings: by arm and metric.
        contrasts: Pooled differences between two arms of which neither is the baseline.
        primary: The primary question; None if none is declared.
        family: The number of tests in the corrected family, without the primary one.
    """

    by_setting: dict[str, list[dict[str, Difference]]]
    pooled: dict[str, dict[str, Difference]]
    contrasts: list[Contrast]
    primary: Primary | None
    family: int


# Arm, the arm subtracted from it, index of the setting (None for all), metric.
_Key = tuple[str, str, int | None, str]


def differences(
    estimates: Estimates, arms: Arms, question: tuple[str, str] | None, margin: float
) -> Differences:
    """Estimate and test every arm's difference in every metric, with corrected p values.

    Args:
        estimates: The estimates of all settings.
        arms: The arms and their models.
        question: Arm and metric of the primary question; None without one.
        margin: The equivalence margin: differences from -margin to +margin count as the same.
            Applies to the primary metric only.
    """
    metric = question[1] if question else None
    settings = range(len(estimates.tasks)) if len(estimates.tasks) > 1 else ()
    pairs = {(name, arms.baseline): arms.against(name) for name in arms.others}
    between = {
        (name, minus): arms.between(name, minus)
        for minus, name in itertools.combinations(arms.others, 2)
    }
    by_key: dict[_Key, Difference] = {}
    for (name, minus), models in (pairs | between).items():
        for task in (None, *(settings if minus == arms.baseline else ())):
            for one in estimates.metrics_of(task):
                within = margin if one == metric and task is None else math.nan
                estimate = estimates.estimate(one, models, task, within)
                difference = _difference(estimates, one, models, task, estimate)
                by_key[name, minus, task, one] = difference
    primary, family = None, 0
    if question:
        by_key, primary, family = _concluded(by_key, arms.baseline, *question)

    def of(name: str, minus: str, task: int | None) -> dict[str, Difference]:
        return {one: by_key[name, minus, task, one] for one in estimates.metrics_of(task)}

    pooled = {name: of(name, arms.baseline, None) for name in arms.others}
    return Differences(
        by_setting={
            # With a single setting, its differences are the pooled ones.
            name: [of(name, arms.baseline, task) for task in settings] or [pooled[name]]
            for name in arms.others
        },
        pooled=pooled,
        contrasts=[
            Contrast(arm=name, minus=minus, differences=of(name, minus, None))
            for name, minus in between
        ],
        primary=primary,
        family=family,
    )


def _concluded(
    by_key: dict[_Key, Difference], baseline: str, arm: str, metric: str
) -> tuple[dict[_Key, Difference], Primary, int]:
    """Correct the p values and derive the findings.

    Returns:
        The differences with corrected p values and findings; the primary question; the number of
        tests in the family.
    """
    primary_key: _Key = arm, baseline, None, metric
    primary = by_key[primary_key]
    rejects = primary.p is not None and primary.p < ALPHA
    update = {"p_corrected": primary.p, "p_same_corrected": primary.p_same}
    primary = primary.model_copy(update=update)
    concluded = {primary_key: primary.model_copy(update={"finding": _finding(primary)})}
    # The family: every metric of every arm, pooled, against the baseline; and the primary metric in
    # contrasts of two arms and in single settings. (Only one definition of the activation entropy,
    # fixed beforehand, is in the family; the other definitions are exploratory. So are metrics of
    # calibrated probabilities, so that showing them changes no other finding.)
    family = {
        key: one
        for key, one in by_key.items()
        if key != primary_key
        and (
            key[3] == metric
            or (key[1] == baseline and key[2] is None and key[3] not in _EXPLORATORY)
        )
    }
    tests = [
        (key, name, p)
        for key, one in family.items()
        for name, p in (("p", one.p), ("p_same", one.p_same))
        if p is not None
    ]
    updates: dict[_Key, dict[str, float]] = {}
    for (key, name, _), corrected in zip(tests, _holm([p for *_, p in tests]), strict=True):
        updates.setdefault(key, {})[f"{name}_corrected"] = float(corrected)
    for key, corrected_ps in updates.items():
        one = family[key].model_copy(update=corrected_ps)
        concluded[key] = one.model_copy(update={"finding": _finding(one) if rejects else None})
    return (
        by_key | concluded,
        Primary(arm=arm, metric=metric, rejects=rejects),
        len(tests),
    )


def _holm(p_values: list[float]) -> Array:
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return np.array([])
    # statsmodels collects garbage at every call, which is slow with this many objects in memory.
    gc.freeze()
    corrected: Array = multipletests(p_values, method="holm")[1]
    gc.unfreeze()
    return corrected


def _finding(difference: Difference) -> Finding | None:
    """The finding of the corrected tests; None if the difference is undefined."""
    p, p_same = difference.p_corrected, difference.p_same_corrected
    if p is None or difference.value is None:
        return None
    same = p_same is not None and p_same < ALPHA
    if p >= ALPHA:
        return "same" if same else "unclear"
    if difference.value > 0:
        return "higher and same" if same else "higher"
    return "lower and same" if same else "lower"


def difference_of(estimates: Estimates, metric: str, models: Models) -> Difference:
    """One pooled difference, which is part of no family of tests: exploratory."""
    return _difference(estimates, metric, models, None, estimates.estimate(metric, models))


def _difference(
    estimates: Estimates, metric: str, models: Models, task: int | None, estimate: Estimate | None
) -> Difference:
    """One difference with its tests, before the correction for multiple comparisons."""
    if estimate is None:
        return Difference(value=None)
    variance = estimate.variance
    return Difference(
        **interval_of(estimate).model_dump(),
        se=_finite(estimate.se),
        df_seeds=variance.df_seeds if variance and variance.df_seeds else None,
        df_groups=variance.df_groups if variance else None,
        p=_finite(estimate.p),
        p_same=_finite(estimate.p_same),
        mcnemar_p=_mcnemar(estimates, metric, models, task),
        effect=_effect(estimates, metric, models, task),
        over=estimate.over if math.isfinite(estimate.se) else None,
    )


def _mcnemar(estimates: Estimates, metric: str, models: Models, task: int | None) -> float | None:
    """McNemar's exact p of a metric that is right or wrong for each document.

    Returns:
        None unless it holds: one task, one seed, one document per group.
    """
    from scipy.stats import binomtest

    at = 0 if task is None and len(estimates.tasks) == 1 else task
    if at is None or len(models.of) > 1:
        return None
    scores = estimates.tasks[at]
    if metric not in scores.proportions or len(scores.sums.groups) < len(scores.ids):
        return None
    correct = scores.values[metric]
    ahead = correct[models.of[0]] - correct[models.minus[0]]
    better, worse = int((ahead > 0).sum()), int((ahead < 0).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _effect(estimates: Estimates, metric: str, models: Models, task: int | None) -> float | None:
    """The effect size: Cohen's h for a proportion, the standardised mean difference for a mean.

    Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd edition, 1988: h in section
    6.2; the standardised mean of paired differences, his d_z, in section 2.3.5. It is the mean of
    the documents' differences over their standard deviation.
    """
    if estimates.is_proportion(metric, task):
        ours, base = (
            estimates.value(metric, Models(side), task) for side in (models.of, models.minus)
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
    """Count the settings in which an arm's accuracy is above, equal to, or below the baseline's."""
    values = [one.value or 0.0 for one in accuracies]
    return Wins(
        # Differences that cancel out over seeds are ties; a rounding error is not a win.
        wins=sum(value > 1e-12 for value in values),
        ties=sum(abs(value) <= 1e-12 for value in values),
        losses=sum(value < -1e-12 for value in values),
        of=len(values),
    )


def detectable_of(estimates: Estimates, models: Models, metric: str) -> Detectable:
    """The smallest pooled difference of two arms that this sample could detect."""
    estimate = estimates.estimate(metric, models)
    if estimate is None or estimate.variance is None:
        return Detectable(value=None)
    value, low, high = (_finite(figure) for figure in detectable(estimate.variance))
    return Detectable(value=value, low=low, high=high)


def needed_for(estimates: Estimates, models: Models, metric: str, difference: float) -> Needed:
    """The groups, or seeds, that finding a given pooled difference takes."""
    estimate = estimates.estimate(metric, models)
    groups = seeds = None
    if estimate is not None and estimate.variance is not None:
        groups, seeds = needed(estimate.variance, estimates.groups, difference)
    return Needed(difference=difference, groups=groups, seeds=seeds)


def gaps(estimates: Estimates, arms: Arms, whole: str) -> dict[str, Gap]:
    """The fraction of the gain in pooled accuracy of ``whole`` that each other arm keeps."""
    fractions = {}
    for name in arms.others:
        pairs = arms.shared_pairs(name, whole)
        if name == whole or not pairs[0].of or estimates.groups < 2:
            continue
        parts = [estimates.pooled_accuracies(models) for models in pairs]
        values, contributions = (np.stack(each) for each in zip(*parts, strict=True))
        fractions[name] = fieller(values, contributions, estimates.weights)
    return fractions
