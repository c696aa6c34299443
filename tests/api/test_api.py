"""The Python API does what the commands do, and writes what they write."""

from __future__ import annotations

import csv
import doctest
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.adapters import KINDS, adapter
from helpers.asking import Workplace
from helpers.compared_results import FIRST, SECOND, results, save
from helpers.labelled_tables import write_tickets_of_customers
from helpers.stock_tasks import STOCK_RESULTS

import regreason_plugin
from regreason_plugin import api
from regreason_plugin.cli import main
from regreason_plugin.core.model_use import RECORD

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/checkpoints"
UserError = regreason_plugin.UserError
ACCURACIES = {"label_only": 0.3, "explanation": 0.5}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """The results of two arms."""
    for name, accuracy in ACCURACIES.items():
        save(tmp_path / name, results({FIRST: accuracy, SECOND: accuracy}))
    return {name: tmp_path / name for name in ACCURACIES}


def test_every_public_name_can_be_imported_and_none_costs_the_import_of_torch() -> None:
    for name in regreason_plugin.__all__:
        if name != "RegReasonPlugin":  # needs Axolotl, which changes the whole process
            assert getattr(regreason_plugin, name).__name__ == name
    assert set(regreason_plugin.__all__) < set(dir(regreason_plugin))
    program = (
        "import sys, regreason_plugin as r; assert 'torch' not in sys.modules; "
        "from regreason_plugin import RegReasonPlugin, compare; "
        "assert 'torch' in sys.modules; print(RegReasonPlugin.__mro__[1], compare)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "BasePlugin" in done.stdout
    assert "<function compare" in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'judge'"):
        regreason_plugin.judge  # noqa: B018


def test_build_writes_the_bytes_of_the_command(tmp_path: Path) -> None:
    flags = ["--per-dataset", "30", "--arms", "filler,label_only", "--seed", "3"]
    flags += ["--max-target-tokens", "12", "--at-most", "train=200"]
    assert main(["build", "mini", "--out", str(tmp_path / "typed"), *flags]) == 0
    folder = api.build(
        "mini",
        tmp_path / "called",
        arms=["filler", "label_only"],
        seed=3,
        at_most={"train": 200},
        max_target_tokens=12,
        per_dataset=30,
    )
    assert list(folder.manifest.lengths) == ["label_only", "filler"]
    typed, called = (
        {
            file.relative_to(tmp_path / name): file.read_bytes()
            for file in (tmp_path / name).rglob("*")
            if file.is_file()
        }
        for name in ("typed", "called")
    )
    assert typed == called
    assert len(typed) == 7


def test_compare_returns_and_writes_the_comparison_of_the_command(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    typed = [f"{name}={folder}" for name, folder in folders.items()]
    assert main(["compare", *typed, "--baseline", "label_only", "--out", str(tmp_path / "a")]) == 0
    returned = api.compare(folders, "label_only", out=tmp_path / "b")
    # A function has no command line to record.
    expected = regreason_plugin.load_comparison(tmp_path / "a/comparison.json")
    assert returned == expected.model_copy(update={"command": ""})
    assert regreason_plugin.load_comparison(str(tmp_path / "b/comparison.json")) == returned
    assert (tmp_path / "b/report.html").is_file()
    # Nothing is written unless a folder is named.
    before = sorted(tmp_path.rglob("*"))
    assert api.compare(folders, "label_only", primary="explanation:nll").primary.metric == "nll"  # type: ignore[union-attr]
    assert sorted(tmp_path.rglob("*")) == before


def test_compare_takes_any_tasks_and_the_first_name_as_baseline(tmp_path: Path) -> None:
    folders = {name: EXAMPLE / name for name in ("base", "tuned")}
    typed = [f"{name}={folder}" for name, folder in folders.items()]
    flags = ["--baseline", "base", "--tasks", "mmlu*", "--group-by", "question"]
    assert main(["compare", *typed, *flags, "--out", str(tmp_path)]) == 0
    expected = regreason_plugin.load_comparison(tmp_path / "comparison.json")
    returned = api.compare(folders, tasks=["mmlu*"], group_by="question")
    assert returned == expected.model_copy(update={"command": ""})
    several = api.compare({"base": [folders["base"]], "tuned": str(folders["tuned"])})
    assert len(several.settings) == 5
    with pytest.raises(UserError, match="baseline: name the arm"):
        api.compare(folders["base"].parent)
    with pytest.raises(UserError, match="results: name two arms or more"):
        api.compare({})


def test_a_comparison_is_a_frame_and_markdown(folders: dict[str, Path], tmp_path: Path) -> None:
    comparison = api.compare(folders | {"NA": folders["explanation"]}, out=tmp_path / "out")
    frame = api.to_frame(comparison)
    with (tmp_path / "out/comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(frame.columns) == list(rows[0])
    assert frame["arm"].tolist() == [row["arm"] for row in rows]
    assert "NA" in set(frame["arm"])
    for value, row in zip(frame["value"], rows, strict=True):
        assert math.isnan(value) if row["value"] == "" else value == float(row["value"])
    assert frame.query("task == 'pooled' and arm == 'explanation' and metric == 'acc'")[
        "difference"
    ].iloc[0] == pytest.approx(0.2)
    assert api.to_markdown(comparison) == (tmp_path / "out/comparison.md").read_text()


def test_gate_returns_the_verdict_of_the_commands_exit_code(folders: dict[str, Path]) -> None:
    worse, better = folders["label_only"], folders["explanation"]
    for baseline, candidate, max_drop, verdict, code in (
        (worse, better, 0.01, "pass", 0),
        (better, worse, 0.01, "fail", 1),
        (better, better.parent / "copy", 0.0, "undecided", 3),
    ):
        if candidate.name == "copy":
            save(candidate, results({FIRST: 0.5, SECOND: 0.5}))
        typed = ["gate", f"a={baseline}", f"b={candidate}", "--baseline", "a"]
        assert main([*typed, "--max-drop", str(max_drop)]) == code
        decision = regreason_plugin.gate(str(baseline), candidate, max_drop=max_drop)
        assert decision.verdict == verdict


def test_what_is_unknown_is_refused_in_one_sentence(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="unknown arm 'shufled'; did you mean 'shuffled'?"):
        api.build("mini", tmp_path / "data", arms=["shufled"])
    with pytest.raises(UserError, match="unknown order 'label_last'"):
        api.build("mini", tmp_path / "data", order="label_last")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown split 'dev'"):
        api.build("mini", tmp_path / "data", at_most={"dev": 3})  # type: ignore[dict-item]
    assert not (tmp_path / "data").exists()
    with pytest.raises(UserError, match="unknown metric 'ece'"):
        api.gate(folders["label_only"], folders["explanation"], metric="ece")
    with pytest.raises(UserError, match="max_drop has to be 0 or more"):
        api.gate(folders["label_only"], folders["explanation"], max_drop=-0.1)
    with pytest.raises(UserError, match="nowhere"):
        api.compare(tmp_path / "nowhere", "label_only")


def test_every_public_name_has_an_example_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The files that the examples name.
    monkeypatch.chdir(tmp_path)
    Path("BASE").symlink_to(ROOT / "axolotl_configs/cpu/tiny-base")
    write_tickets_of_customers(tmp_path)
    columns = ["--text", "message", "--label", "queue", "--model", "BASE"]
    assert main(["task", "new", "tickets", "--data", "tickets.csv", *columns]) == 0
    # Before the data are built, `score` raises what the command would print.
    typed = list(sys.argv)
    with pytest.raises(UserError, match="runs/tickets/data"):
        api.score("pretrained=BASE", "tickets", "results/base", task_files="tickets")
    assert sys.argv == typed
    # (Of this split's validation rows, most have the label that the random adapter prefers.)
    folder = api.build("tickets/task.yml", "runs/tickets/data", seed=2)
    model = adapter(Path("runs/tickets/models/label_only"), **KINDS["layers"])
    trained_on = {"sha256": folder.sha256, "path": "runs/tickets/data"}
    record = {"arm": "label_only", "scope": None, "order": folder.order, "data": trained_on}
    (model / RECORD).write_text(json.dumps(record), encoding="utf-8")
    for name, accuracy in ACCURACIES.items():
        save(Path("results") / name, results({FIRST: accuracy, SECOND: accuracy}))
    rater = {"prompts": ["scale-1-5"], "structured": "json_schema"}
    place = Workplace(tmp_path, "http://127.0.0.1:9/v1", 1, [rater])
    assert place.config == tmp_path / "annotate.yml"
    capsys.readouterr()

    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    # The first is raised, not called; the second is for a YAML file.
    without = {"UserError", "RegReasonPlugin"}
    # (`load_comparison` reads what the example of `compare` writes.)
    for name in sorted(set(regreason_plugin.__all__) - without):
        (test,) = finder.find(getattr(regreason_plugin, name), name, globs={})
        assert len(test.examples) >= 2, name
        assert not any(doctest.SKIP in example.options for example in test.examples), name
        failed, _ = runner.run(test)
        assert failed == 0, capsys.readouterr().out


def test_the_gate_takes_any_tasks_of_lm_eval() -> None:
    folders = [STOCK_RESULTS / "0.4.13" / "main" / arm for arm in ("base", "tuned")]
    decision = api.gate(*folders, tasks=["mmlu"], per="task", max_drop=0.9)
    assert decision.metric.title == "acc"
    assert len(decision.parts) == 4
    scores = [
        json.loads(next(folder.glob("results_*.json")).read_text(encoding="utf-8"))["groups"]
        for folder in folders
    ]
    found = (decision.overall.baseline, decision.overall.candidate)
    assert found == pytest.approx([of["mmlu"]["acc,none"] for of in scores], abs=1e-7)
    # A value below its floor is never a pass, and no error: higher is better.
    assert api.gate(*folders, tasks=["mmlu"], max_drop=0.9, limit=0.99).verdict != "pass"
