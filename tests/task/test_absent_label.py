"""A label that test or validation lacks: said by `task new`, `check`, the task and the gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.results import Task, documents, draw_scores, write_results

from regreason_plugin.cli import main
from regreason_plugin.evaluate.documents import label_first_documents
from regreason_plugin.task import new_task

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
Made = Callable[[str], Path]
SAID = (
    "no {split} row has the label 'rare', so {split} scores say nothing about it, and macro_f1 "
    "counts it as 0"
)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A function that makes a task and its data, in which some splits have the label ``rare``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new_task, "check_is_free", lambda name: None)
    (tmp_path / "axolotl_configs").symlink_to(ROOT / "axolotl_configs")

    def make(having: str) -> Path:
        lines = ["text,label,part"]
        for split, count in (("train", 60), ("validation", 20), ("test", 20)):
            for n in range(count):
                rare = n % 5 == 0 and split in having.split()
                lines.append(f"{split} message {n},{'rare' if rare else 'common'},{split}")
        Path("t.csv").write_text("\n".join(lines) + "\n")
        columns = ["--text", "text", "--label", "label", "--split", "part"]
        assert main(["task", "new", "mine", "--data", "t.csv", *columns]) == 0
        assert main(["build", "mine/task.yml", "--out", "runs/mine/data"]) == 0
        return tmp_path / "runs" / "mine" / "data"

    return make


@pytest.mark.parametrize(
    ("having", "lacking"),
    [("train validation", "test"), ("train test", "validation"), ("train validation test", "")],
)
def test_new_build_check_and_the_task_say_it(
    made: Made, capfd: pytest.CaptureFixture[str], having: str, lacking: str
) -> None:
    data = made(having)
    printed = " ".join(capfd.readouterr().out.split())
    # Once by `task new` and once by `build`.
    assert printed.count(SAID.format(split=lacking)) == (2 if lacking else 0)
    assert main(["check", "mine/mine.lora.yml"]) == 0
    checked = capfd.readouterr()
    warned = [
        line for line in (checked.out + checked.err).splitlines() if "row has the label" in line
    ]
    assert len(warned) == bool(lacking)
    assert all(line.startswith("warning: runs/mine/data: ") for line in warned)
    assert all(SAID.format(split=lacking) in line for line in warned)
    for split in ("validation", "test"):
        label_first_documents(setting=["mine", "label"], data={}, data_dir=str(data), split=split)
        said = capfd.readouterr().err
        assert (SAID.format(split=split) in said) == (split == lacking)


def test_the_gate_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Of twelve labels, twenty documents lack some.
    task = Task("mine", tuple(f"label {letter}" for letter in "abcdefghijkl"))
    known = {row["label"] for row in documents(task, 20)}
    absent = [label for n, label in enumerate(task.labels, start=1) if n not in known]
    assert 1 < len(absent) < 6
    for name, seed in (("old", 1), ("new", 2)):
        write_results(tmp_path / name, {task: draw_scores(task, 20, 0.9, seed)})
    models = [f"old={tmp_path / 'old'}", f"new={tmp_path / 'new'}", "--baseline", "old"]
    summary = ["--summary", str(tmp_path / "summary.md")]
    assert main(["gate", *models, "--metric", "macro_f1", "--max-drop", "0.5", *summary]) in (0, 3)
    note = f"mine: no test row has the labels {', '.join(map(repr, absent))}, so test scores say"
    assert note in capsys.readouterr().out
    assert note in (tmp_path / "summary.md").read_text(encoding="utf-8").replace("\\", "")


def test_a_metric_that_is_undefined_for_this_reason_asks_for_the_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # With all documents of one label, kappa is undefined.
    task = next(
        one
        for one in (Task(f"mine{n}", ("bad", "good"), ordinal=True) for n in range(99))
        if {row["label"] for row in documents(one, 4)} == {2}
    )
    for name, seed in (("old", 1), ("new", 2)):
        scores = draw_scores(task, 4, 0.9, seed)
        assert np.isfinite(scores).all()
        write_results(tmp_path / name, {task: scores})
    models = [f"old={tmp_path / 'old'}", f"new={tmp_path / 'new'}", "--baseline", "old"]
    assert main(["gate", *models, "--metric", "qwk"]) == 2
    said = capsys.readouterr().err
    assert "is undefined for one of the models; score documents with the label 'bad', which" in said
    assert said.count("\n") == 1
