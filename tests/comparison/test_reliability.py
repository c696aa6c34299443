"""The reliability band of a calibrated model, on simulated calibrated models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from regreason_plugin.comparison.task_scores import reliability_of
from regreason_plugin.metrics.calibration import ECE_BINS, bins_of

SEEDS = 3


def task_of(
    random: np.random.Generator, shared: np.ndarray[Any, Any], groups: list[str], over: float
) -> Any:
    """Three seeds with two labels whose predictions of a document partly agree."""
    of_document = random.normal(size=(2, len(groups)))
    own = random.normal(size=(2, SEEDS, len(groups)))
    where, luck = ndtr(
        np.sqrt(0.4) * shared[:, None] + np.sqrt(0.3) * of_document[:, None] + np.sqrt(0.3) * own
    )
    confidences = 0.5 + 0.3 * where
    correct = (luck < confidences - over).astype(float)
    bins = np.zeros((SEEDS, ECE_BINS, 3))
    for seed in range(SEEDS):
        each = np.stack([np.ones(len(groups)), confidences[seed], correct[seed]], axis=1)
        np.add.at(bins[seed], bins_of(confidences[seed]), each)
    return SimpleNamespace(
        folder="data",
        groups=groups,
        values={"overconfidence": (confidences - correct).astype(np.float32)},
        labelled=SimpleNamespace(
            bins=bins,
            probabilities=np.stack([confidences, 1 - confidences], axis=2).astype(np.float32),
        ),
    )


def share_inside(groups_of: int, over: float, trials: int = 150) -> float:
    """The fraction of bins inside the band; two tasks share groups, like a conversation's axes."""
    random = np.random.default_rng(8)
    names = [f"{place // groups_of}" for place in range(240)]
    inside, count = 0, 0
    for _ in range(trials):
        of_group = random.normal(size=(2, 240))[:, np.arange(240) // groups_of]
        tasks = [task_of(random, of_group, names, over) for _ in range(2)]
        for one in reliability_of(tasks, range(SEEDS)):
            if one.count >= 20:
                assert one.accuracy is not None
                assert one.band_low is not None
                assert one.band_high is not None
                inside += one.band_low <= one.accuracy <= one.band_high
                count += 1
            elif not one.count:
                assert one.band_low is None
    return inside / count


@pytest.mark.parametrize("groups_of", [1, 3])
def test_the_band_holds_a_calibrated_model_and_not_another(groups_of: int) -> None:
    # Even with one document per group, two tasks and three seeds give six correlated predictions.
    assert 0.92 < share_inside(groups_of, 0.0) < 0.985
    assert share_inside(groups_of, 0.25, trials=20) < 0.35


def test_the_band_of_one_model_with_independent_documents_is_the_binomials() -> None:
    random = np.random.default_rng(9)
    names = [f"{place}" for place in range(240)]
    (one,) = (task_of(random, np.zeros((2, 240)), names, 0.0) for _ in range(1))
    found = reliability_of([one], [1])
    for place, (count, confidence, _) in enumerate(one.labelled.bins[1]):
        if count:
            p, n = confidence / count, int(count)
            drawn = np.sort(np.random.default_rng(place).binomial(n, p, 100_000)) / n
            expected = [drawn[2_500], drawn[97_500]]
            assert [found[place].band_low, found[place].band_high] == pytest.approx(
                expected, abs=1.01 / n
            )
