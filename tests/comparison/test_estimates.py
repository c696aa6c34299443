"""Intervals of metrics that are not means, on simulated results with known truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, ndtr

from regreason_plugin.comparison.arms import Models
from regreason_plugin.comparison.estimates import Estimates
from regreason_plugin.metrics.answers import Answers
from regreason_plugin.metrics.calibration import variance_if_calibrated
from regreason_plugin.metrics.group_sums import document_values, statistics_of, sums_of
from regreason_plugin.metrics.metric_names import METRICS

TRIALS, TASKS, DOCUMENTS, LABELS = 150, 6, 60, 5
ALONE, AGAINST = Models((1,)), Models((1,), (0,))


def answers(labels: NDArray[np.int64], logs: NDArray[np.float64], task: int) -> Answers:
    names = [f"{task}-{number}" for number in range(len(labels))]
    return Answers("task", Path("samples"), names, names, names, labels, logs, {}, {})


def scores_of(models: Sequence[Answers]) -> Any:
    """The task scores that the estimates read."""
    values = [document_values(one) for one in models]
    sums, statistics = sums_of(models), statistics_of(models)
    return SimpleNamespace(
        folder="data",
        sums=sums,
        groups=models[0].groups,
        metrics={name: METRICS[name] for name in METRICS if name in statistics},
        statistics=statistics,
        values={name: np.stack([of[name] for of in values]) for name in values[0]},
        proportions={"acc"},
        replicates={},
        logged=False,
        pooled=True,
        labelled=SimpleNamespace(
            chance_variance=np.array(
                [
                    variance_if_calibrated(one.confidences, one.correct, sums.member)
                    for one in models
                ]
            )
        ),
    )


def honest_and_too_sure(random: np.random.Generator, task: int) -> Any:
    """Two models with the same accuracy in one task; the second is far overconfident."""
    truth = random.normal(0, 1.2, (DOCUMENTS, LABELS))
    chosen = truth + random.gumbel(size=truth.shape)
    labels = chosen.argmax(axis=1).astype(np.int64) + 1
    return scores_of(
        [
            answers(labels, log_softmax(sharpness * (truth + noise), axis=1), task)
            for sharpness, noise in zip(
                (1.0, 2.0), random.normal(0, 0.5, (2, *truth.shape)), strict=True
            )
        ]
    )


def test_few_seeds_hold_what_as_many_other_documents_would_say() -> None:
    """Pooled over tasks, a bias of the same sign adds up, and chance does not."""
    random = np.random.default_rng(0)
    found: dict[tuple[str, Models], list[tuple[float, float, float]]] = {}
    for _ in range(TRIALS):
        tasks = [honest_and_too_sure(random, task) for task in range(TASKS)]
        of_trial = Estimates(tasks)
        for metric in ("macro_f1", "qwk", "miscalibration"):
            for models in (ALONE, AGAINST):
                one = of_trial.estimate(metric, models)
                assert one is not None
                assert one.low < one.value < one.high
                found.setdefault((metric, models), []).append((one.value, one.low, one.high))
    for what, each in found.items():
        values, low, high = np.array(each).T
        covered = float(((low <= values.mean()) & (values.mean() <= high)).mean())
        # The limit for a correct method: 99.9 % of simulations with 150 trials stay within it.
        assert covered > 0.95 - 3.3 * (0.95 * 0.05 / TRIALS) ** 0.5, (what, covered)
        # The intervals are not much too wide; the jackknife of squares is somewhat too wide.
        most = 1.5 if what[0] == "miscalibration" else 1.25
        assert (high - low).mean() < 2 * 1.96 * values.std() * most, what


def calibrated(random: np.random.Generator, levels: Sequence[float], documents: int) -> Any:
    """Three seeds at each level of confidence, right as often as they are confident."""
    seen, models = random.normal(size=documents), []
    labels = np.ones(documents, dtype=np.int64)
    for level in levels:
        for _ in range(3):
            confidences = level + 0.004 * random.uniform(-1, 1, documents)
            luck = ndtr(np.sqrt(0.7) * seen + np.sqrt(0.3) * random.normal(size=documents))
            right, wrong = np.log(confidences), np.log(1 - confidences)
            first = luck < confidences
            logs = np.stack([np.where(first, right, wrong), np.where(first, wrong, right)], axis=1)
            models.append(answers(labels, logs, 0))
    return scores_of(models)


def test_three_calibrated_seeds_are_not_told_from_three_surer_ones() -> None:
    # All seeds of an arm are scored on the same documents. If chance gives all of them the lowest
    # estimate, they agree, and neither seeds nor groups seem to vary.
    random, claims = np.random.default_rng(1), 0
    for _ in range(200):
        estimates = Estimates([calibrated(random, (0.95, 0.995), 300)])
        one = estimates.estimate("miscalibration", Models((0, 1, 2), (3, 4, 5)))
        assert one is not None
        claims += one.p < 0.05
    assert claims / 200 < 0.03
