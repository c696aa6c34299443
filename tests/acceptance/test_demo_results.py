"""The results of a finished demo in runs/demo show that the mini benchmark can be learnt.

Run these tests after `make demo`. They do not compare arms.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from regreason_plugin.comparison.comparison import load_comparison
from regreason_plugin.data_folder.arms import PAPER_ARMS
from regreason_plugin.data_folder.folder import open_data_folder

DEMO = Path(__file__).parents[2] / "runs" / "demo"


def samples(arm: str) -> dict[str, list[dict[str, object]]]:
    """The logged samples of an arm, by task."""
    found: dict[str, list[dict[str, object]]] = {}
    for file in sorted((DEMO / "results" / arm).rglob("samples_regreason_*.jsonl")):
        task = file.name.removeprefix("samples_").rsplit("_", 1)[0]
        found[task] = [json.loads(line) for line in file.read_text().splitlines()]
    return found


def test_most_settings_can_be_learnt() -> None:
    # Only for the baseline, for which the hyperparameters were chosen; the accuracy of the other
    # arms is a result. Computed from the samples, so that the test does not use our metrics.
    learnt = []
    by_task = samples("label_only")
    assert len(by_task) == 18
    for task, rows in by_task.items():
        scores = [[float(answer[0]) for answer in row["filtered_resps"]] for row in rows]  # type: ignore[index,union-attr,attr-defined]
        predicted = [row.index(max(row)) + 1 for row in scores]
        labels = [row["doc"]["label"] for row in rows]  # type: ignore[index]
        hits = [int(a == b) for a, b in zip(predicted, labels, strict=True)]
        accuracy = sum(hits) / len(hits)
        lower = accuracy - 1.96 * (accuracy * (1 - accuracy) / len(hits)) ** 0.5
        majority = max(labels.count(label) for label in set(labels)) / len(labels)
        qwk = cohen_kappa_score(labels, predicted, weights="quadratic", labels=[1, 2, 3, 4, 5])
        if lower > majority and qwk >= 0.3:
            learnt.append(task)
    assert len(learnt) >= 12, sorted(learnt)


def test_the_table_is_of_generated_data_and_of_these_adapters() -> None:
    comparison = load_comparison(DEMO / "comparison.json")
    folder = open_data_folder(DEMO / "data")
    assert comparison.data["origin"] == "generated"
    assert comparison.data["sha256"] == folder.sha256
    assert len(comparison.settings) == 18
    arms = {comparison.baseline, *comparison.arms}
    assert {"label_only", "explanation"} <= arms <= set(PAPER_ARMS)
    for arm in arms:
        trained = json.loads((DEMO / "models" / arm / "regreason.json").read_text())
        assert trained["arm"] == arm
        for task, sampled in samples(arm).items():
            assert comparison.scores[arm][task]["acc"].value == pytest.approx(
                sum(row["acc"] for row in sampled) / len(sampled)  # type: ignore[misc]
            )
