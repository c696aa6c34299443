"""From `regreason eval` on train and on test rows to the gap in the comparison's files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.adapters import BASE, adapter
from helpers.scoring import PlainScorer, find_our_tasks_only
from helpers.training_data import build_data
from scipy.special import log_softmax

from regreason_plugin.cli import main
from regreason_plugin.core.errors import say_once
from regreason_plugin.core.splits import Split
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate import documents
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand

pytestmark = pytest.mark.integration

TASK = "regreason_coqa_on_topic"
SPLITS: dict[Split, str] = {"train": "train/explanation.jsonl", "test": "test.jsonl"}


@pytest.fixture(autouse=True)
def _forget_folders() -> None:
    say_once.cache_clear()
    documents.documents_by_setting.cache_clear()


def loss(scorer: PlainScorer, folder: DataFolder, name: str) -> float:
    """The mean label loss over a file's rows, normalised over the labels."""
    rows = list(folder.rows(name))
    scores = log_softmax([scorer.labels(row.messages[0].content) for row in rows], axis=1)
    return float(-scores[np.arange(len(rows)), [row.label - 1 for row in rows]].mean())


def test_scored_by_the_command_it_is_what_plain_transformers_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_our_tasks_only(monkeypatch)
    # `regreason eval` sets sys.argv, because lm-eval reads it.
    monkeypatch.setattr(sys, "argv", ["pytest"])
    folder = build_data(tmp_path / "DATA", rows=45, group_size=3)
    tuned = adapter(tmp_path / "tuned", target_modules=["q_proj", "v_proj", "down_proj"])
    arms = {"plain": {}, "tuned": {"peft": str(tuned)}}
    for arm, peft in arms.items():
        for split in SPLITS:
            command = LmEvalCommand(
                model_args={"pretrained": str(BASE), **peft, "dtype": "float32"},
                tasks=[TASK],
                data_dir=folder.path,
                split=split,
                batch_size="8",
                device="cpu",
                output_path=tmp_path / "results" / arm,
            )
            assert main(["eval", *command.flags()]) == 0
    results = [f"{arm}={tmp_path / 'results' / arm}" for arm in arms]
    out = tmp_path / "out"
    assert main(["compare", *results, "--baseline", "plain", "--out", str(out)]) == 0
    found = json.loads((out / "comparison.json").read_text(encoding="utf-8"))["generalisation"]
    expected = {}
    for arm in arms:
        scorer = PlainScorer(BASE, adapter=tuned if arm == "tuned" else None)
        by_split = {split: loss(scorer, folder, name) for split, name in SPLITS.items()}
        expected[arm] = by_split["test"] - by_split["train"]
        for split, value in by_split.items():
            assert found[arm][split]["value"] == pytest.approx(value, abs=1e-4)
        gap = found[arm]["gap"]
        assert gap["value"] == pytest.approx(expected[arm], abs=1e-4)
        assert gap["low"] < gap["value"] < gap["high"]
    difference = found["tuned"]["difference"]
    assert difference["value"] == pytest.approx(expected["tuned"] - expected["plain"], abs=1e-4)
    assert abs(difference["value"]) > 0.01
    rows = {split: sum(1 for _ in folder.rows(name)) for split, name in SPLITS.items()}
    assert (found["plain"]["train_documents"], found["plain"]["test_documents"]) == (
        rows["train"],
        rows["test"],
    )
    for file in ("report.html", "comparison.md"):
        assert "Train rows and test rows" in (out / file).read_text(encoding="utf-8")
