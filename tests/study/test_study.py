"""A study from its file to its report: the numbers are the models', and no stage runs twice."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.axolotl import ROOT, environment, programs
from helpers.labelled_tables import write_answers
from scipy import stats

from regreason_plugin.cli import main
from regreason_plugin.comparison.comparison import load_comparison
from regreason_plugin.study.condition_scores import Mean
from regreason_plugin.study.plan import Plan, Seconds
from regreason_plugin.study.study_file import read_study

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TASK = ("task", "new", "verdict", "--data", "answers.jsonl", "--text", "text", "--label", "verdict")
STUDY: dict[str, Any] = {
    "title": "answers <judged>",
    "out": "runs/study",
    "data": {
        "task": "verdict/task.yml",
        "at_most": {"train": 48, "validation": 12, "test": 24},
    },
    "base": str(ROOT / "axolotl_configs/cpu/tiny-base"),
    "config": str(ROOT / "axolotl_configs/cpu/lora.yml"),
    "training": {"micro_batch_size": 4, "logging_steps": 4},
    # (With a learning rate of 1e-9 a model learns nothing.)
    "choose": {"grid": {"learning_rate": [0.001, 0.000000001]}},
    "conditions": {
        "label_only": None,
        "explanation": None,
        "explanation-later": {"arm": "explanation", "order": "explanation_first"},
    },
    "seeds": [1, 2],
    "scoring": {"train_rows": 12},
    "baselines": ["tfidf"],
    "kept": "kept",
}


@dataclass(frozen=True)
class Place:
    """A finished study.

    Attributes:
        folder: The current folder in which it ran.
        plan: Its plan, with paths relative to ``folder``.
    """

    folder: Path
    plan: Plan

    @property
    def out(self) -> Path:
        """The folder of the study's files."""
        return self.folder / self.plan.out


def write_study(folder: Path, **changes: Any) -> Path:
    file = folder / "study.yml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished study of two seeds."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_answers(folder)
        columns = ["--explanation", "why", "--id", "id", "--group", "book"]
        # (A separate process, because the command loads Axolotl, which changes the environment.)
        command = [sys.executable, "-m", "regreason_plugin", *TASK, *columns]
        subprocess.run(command, check=True, env=environment())
        # The study runs the commands that lie beside the interpreter.
        patch.setattr(sys, "executable", str(programs() / "python"))
        assert main(["study", str(write_study(folder)), "--jobs", "2"]) == 0
        return Place(folder, Plan(read_study(folder / "study.yml")))


@pytest.fixture
def _there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr(sys, "executable", str(programs() / "python"))


pytestmark.append(pytest.mark.usefixtures("_there"))


def test_the_lowest_validation_loss_is_chosen_and_used(place: Place) -> None:
    study = json.loads((place.out / "study.json").read_text())
    assert study["chosen"] == {"learning_rate": 0.001}
    losses = [one["loss"] for one in study["choice"]]
    assert losses[0] < losses[1] - 0.1
    for condition in place.plan.study.conditions:
        record = json.loads((place.plan.model(condition, 2) / "regreason.json").read_text())
        assert (record["arm"], record["order"]) == (condition.arm, condition.order)
        assert (record["seed"], record["learning_rate"]) == (2, 0.001)
        # At most 48 rows, in whole groups; a step takes four.
        assert record["rows"] <= 48
        assert record["steps"] == -(-record["rows"] // 4)


def test_the_heads_trainings_are_part_of_the_estimate(place: Place) -> None:
    def expected(*methods: str) -> float:
        study = place.plan.study.model_copy(update={"baselines": methods})
        seconds = Seconds(lambda keys, order: 100 * keys["num_epochs"], lambda rows, order: rows)
        return replace(place.plan, study=study, seconds=seconds).comparing({})[-1].seconds

    rows = len((place.plan.data("label_first") / "test.jsonl").read_text().splitlines())
    assert expected("tfidf") == rows
    # `regreason baselines` trains a head for three epochs by default, here with two seeds.
    assert expected("tfidf", "head") == 2 * rows + 2 * 300


def test_its_figures_are_means_over_the_scored_documents(place: Place) -> None:
    study = json.loads((place.out / "study.json").read_text())["conditions"]
    label_only, _, explained = place.plan.study.conditions
    for condition, split, metric in (
        (label_only, "test", "acc"),
        (explained, "test", "acc"),
        (explained, "test", "forced_acc"),
    ):
        for number, seed in enumerate((1, 2)):
            folder = place.plan.results(condition, seed) / split
            (file,) = folder.rglob("samples_*.jsonl")
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            found = study[condition.name]["by_seed"][metric][number]
            assert found == pytest.approx(statistics.fmean(row[metric] for row in rows))
    assert 0 < study["label_only"]["by_seed"]["activation_entropy_mid"][0] < 1


def test_train_rows_are_scored_beside_the_test_rows(place: Place) -> None:
    label_only = place.plan.study.conditions[0]
    trained = {
        json.loads(line)["id"]
        for line in (place.plan.data("label_first") / "train/label_only.jsonl").open()
    }
    (file,) = (place.plan.results(label_only, 1) / "train").rglob("samples_*.jsonl")
    scored = {json.loads(line)["doc"]["id"] for line in file.read_text().splitlines()}
    assert len(scored) == 12
    assert scored <= trained
    test = place.plan.open_data("label_first").manifest.counts["test"].rows
    said = f"nats) on 12 train and {test} test rows"
    assert said in (place.out / "comparison.md").read_text()
    assert said in (place.out / "study.md").read_text()


def test_differences_and_intervals_are_those_of_compare(place: Place) -> None:
    out = place.out / "compared"
    folders = [f"{name}={place.out / 'results' / name}" for name in ("label_only", "explanation")]
    command = ["compare", *folders, "--baseline", "label_only", "--out", str(out)]
    assert main(command) == 0
    theirs, ours = (
        load_comparison(out / "comparison.json"),
        load_comparison(place.out / "comparison.json"),
    )
    assert (ours.pooled, ours.pooled_scores) == (theirs.pooled, theirs.pooled_scores)
    assert (place.out / "report.html").is_file()
    text = (place.out / "study.md").read_text()
    found = theirs.pooled["explanation"]["nll"]
    assert found.low is not None
    (row,) = re.findall(r"^\| explanation \| .*", text.split("## Label first")[1], re.MULTILINE)[:1]
    assert f"{found.value:+.3f}" in row
    assert f"({found.low:+.3f} to {found.high:+.3f})" in row


def test_the_report_says_what_it_is(place: Place) -> None:
    text = (place.out / "study.md").read_text()
    assert "of these trained models only" in text
    assert "| label_only (mean) |" in text
    before, after = text.split("## Explanation first")
    assert "explanation-later" in after
    assert "explanation-later" not in before
    assert "| TF-IDF and logistic regression |" in before.split("## Baseline methods")[1]
    # Two seeds are too few for an interval over seeds.
    assert "±" not in after.split("| condition")[1]
    assert (place.out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_study_runs_nothing_again(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (place.out / "study.json").read_bytes()
    assert main(["study", "study.yml"]) == 0
    out = capsys.readouterr().out
    assert "Measured on this machine" not in out
    assert out.count("done before") == out.count("  $ axolotl") + out.count("  $ regreason")
    assert (place.out / "study.json").read_bytes() == before


def test_kept_runs_hold_no_text_and_a_study_goes_on_from_them(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = sorted((place.folder / "kept").glob("*.json.gz"))
    assert len([file for file in kept if not file.name.startswith("documents-")]) == 6
    texts = [json.loads(line) for line in (place.folder / "answers.jsonl").open()]
    for file in kept:
        content = gzip.decompress(file.read_bytes()).decode()
        for row in texts:
            assert row["text"] not in content
            assert row["why"] not in content
            assert f'"{row["book"]}"' not in content
    # Another machine has the same files, but no trained models.
    write_study(place.folder, out="runs/again")
    (place.folder / "runs/again").mkdir()
    try:
        assert main(["study", "study.yml"]) == 0
    finally:
        write_study(place.folder)
    out = capsys.readouterr().out
    assert "Reused 6 finished runs from kept" in out
    assert out.count("$ axolotl train runs/again/configs") == 6
    # Only the stage of the baseline methods runs.
    assert out.count("done before") == 6 + 6 + 4
    outs = [place.folder / "runs" / name for name in ("study", "again")]
    one, other = (load_comparison(out / "comparison.json") for out in outs)
    assert not list((place.folder / "runs/again").rglob("adapter_model.safetensors"))
    for metric, score in one.pooled["explanation"].items():
        again = other.pooled["explanation"][metric]
        assert again.value == pytest.approx(score.value, abs=1e-4), metric
        assert again.low == pytest.approx(score.low, abs=1e-3), metric
    # The restored samples have their texts from the data, which were built again.
    documents = []
    for out in outs:
        (file,) = (out / "results/explanation/2/test").rglob("samples_*.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        documents.append({row["doc"]["id"]: row["doc"] for row in rows})
    assert documents[0].keys() == documents[1].keys()
    for row_id, document in documents[1].items():
        assert "Answer:" in document["prompt"]
        assert document.items() <= documents[0][row_id].items()


def test_a_kept_run_of_other_inputs_is_not_taken(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"training": {**STUDY["training"], "lora_r": 16}, "out": "runs/other"}
    write_study(place.folder, **changes)
    try:
        assert main(["study", "study.yml", "--dry-run"]) == 0
    finally:
        write_study(place.folder)
    out = capsys.readouterr().out
    assert "finished runs" not in out
    measured = r"Measured on this machine: [\d.]+ s per step, [\d.]+ s per scored text, [\d.]+ GiB"
    assert re.search(measured, " ".join(out.split()))
    assert "The remaining stages take about" in out
    other = place.folder / "runs/other"
    assert not list(other.glob("models/*"))
    assert not list(other.glob("choice/*"))
    shutil.rmtree(other)


def test_time_and_memory_are_told_before_it_starts(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(place.folder, out="runs/short", kept=None)
    try:
        assert main(["study", "study.yml", "--minutes", "0.05"]) == 3
        out = " ".join(capsys.readouterr().out.split())
        assert "That is more than the limit of 0.05 minutes" in out
        assert "2 stages are left, beginning with choose 0.001" in out
        assert not list((place.folder / "runs/short").glob("choice/*"))
        write_study(place.folder, out="runs/short", kept=None, limits={"memory_gib": 0.05})
        assert main(["study", "study.yml"]) == 2
        said = capsys.readouterr().err
        room = r"takes about [\d.]+ GiB of memory, but limits\.memory_gib allows only 0\.1 GiB"
        assert re.search(room, said)
        assert main(["study", "study.yml", "--jobs", "3000"]) == 2
    finally:
        write_study(place.folder)


def test_the_interval_is_students() -> None:
    values = [0.31, 0.4, 0.35, 0.52, 0.29]
    mean = Mean.of(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean.half_width is not None
    assert mean.value - mean.half_width == pytest.approx(expected.low)
    assert mean.value + mean.half_width == pytest.approx(expected.high)
    assert Mean.of(values[:2]).half_width is None
