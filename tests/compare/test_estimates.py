"""Intervals of metrics that are no means, on simulated results whose truth is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from regreason_plugin.compare.arms import Models
from regreason_plugin.compare.estimates import Estimates
from regreason_plugin.metrics.answers import Answers
from regreason_plugin.metrics.group_sums import statistics_of, sums_of

TRIALS, TASKS, DOCUMENTS, LABELS = 150, 6, 60, 5
ALONE, AGAINST = Models((1,)), Models((1,), (0,))


def scores_of(random: np.random.Generator, task: int) -> Any:
    """Two models of one truth in one task; the second is far too sure of itself."""
    truth = random.normal(0, 1.2, (DOCUMENTS, LABELS))
    chosen = truth + random.gumbel(size=truth.shape)
    labels = chosen.argmax(axis=1).astype(np.int64) + 1
    names = [f"{task}-{number}" for number in range(DOCUMENTS)]

    def answers(sharpness: float) -> Answers:
        seen = truth + random.normal(0, 0.5, truth.shape)
        logs: NDArray[np.float64] = log_softmax(sharpness * seen, axis=1)
        return Answers("task", Path("samples"), names, names, names, labels, logs, {}, {})

    sums = sums_of([answers(1.0), answers(2.0)])
    return SimpleNamespace(folder="data", sums=sums, statistics=statistics_of(sums))


def test_few_seeds_hold_what_as_many_other_documents_would_say() -> None:
    """Pooled: what leans to one side in every task adds up over them, and chance does not."""
    random = np.random.default_rng(0)
    found: dict[tuple[str, Models], list[tuple[float, float, float]]] = {}
    for _ in range(TRIALS):
        tasks = [scores_of(random, task) for task in range(TASKS)]
        of_trial = Estimates(tasks, [ALONE, AGAINST], draws=400)
        for metric in ("acc", "macro_f1", "qwk", "ece"):
            for models in (ALONE, AGAINST):
                one = of_trial.estimate(metric, models)
                assert one is not None
                assert one.low < one.value < one.high
                found.setdefault((metric, models), []).append((one.value, one.low, one.high))
    for what, each in found.items():
        values, low, high = np.array(each).T
        covered = float(((low <= values.mean()) & (values.mean() <= high)).mean())
        # Of a correct method with 150 trials, 99.9 % of the time.
        assert covered > 0.95 - 3.3 * (0.95 * 0.05 / TRIALS) ** 0.5, (what, covered)
        # Nor is it bought with width.
        assert (high - low).mean() < 2 * 1.96 * values.std() * 1.25, what
