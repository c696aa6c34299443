"""The study's own way, with three conditions and small data: every number from what was trained."""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

import pytest
import yaml
from helpers.axolotl import ROOT, programs
from scipy import stats

from regreason_plugin.cli import main
from regreason_plugin.compare.comparison import load
from regreason_plugin.study import run_plan
from regreason_plugin.study.condition_scores import Mean
from regreason_plugin.study.plan import CONDITIONS, Hyperparameters, Plan

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SETTINGS = (Hyperparameters(0.001, 1), Hyperparameters(1e-9, 1))
NAMES = ("label_only", "explanation", "explanation-explanation_first")
THREE = tuple(one for one in CONDITIONS if one.name in NAMES)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished study of one seed."""
    plan = Plan(tmp_path_factory.mktemp("study"), (1,), 30, THREE, SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        # Its commands are those beside the interpreter.
        patch.setattr(sys, "executable", str(programs() / "python"))
        assert run_plan(plan, jobs=2) == 0
    return plan


def test_the_conditions_are_those_asked_for() -> None:
    names = [one.name for one in CONDITIONS]
    assert len(set(names)) == len(names) == 13
    first = [one for one in CONDITIONS if one.order == "label_first" and not one.changes]
    assert len({one.arm for one in first}) == 7
    changed = {(one.arm, key) for one in CONDITIONS for key in one.changes}
    assert changed == {
        ("label_only", "regreason_label_smoothing"),
        ("label_only", "lora_dropout"),
        ("explanation", "regreason_label_share"),
        ("bag_of_words", "regreason_label_share"),
    }
    assert {one.arm for one in CONDITIONS if one.order == "explanation_first"} == {
        "explanation",
        "shuffled",
    }


def test_conditions_differ_in_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = Plan(tmp_path, (1, 2), 30)
    plan.training(SETTINGS[0])
    places = {"datasets", "test_datasets", "output_dir", "regreason_arm"}
    base = yaml.safe_load((tmp_path / "configs/label_only-1.yml").read_text())
    for condition in CONDITIONS:
        for seed in plan.seeds:
            file = tmp_path / "configs" / f"{condition.name}-{seed}.yml"
            values = yaml.safe_load(file.read_text())
            differ = {key for key in base if values[key] != base[key]} - places
            assert values.keys() == base.keys()
            assert differ == set(condition.changes) | ({"seed"} if seed != 1 else set())
            for name, split in (("datasets", "train"), ("test_datasets", "validation")):
                path = plan.data(condition.order) / split / "{arm}.jsonl"
                assert values[name][0]["path"] == str(path)


def test_the_lowest_validation_loss_is_chosen_and_used(plan: Plan) -> None:
    study = json.loads((plan.out / "study.json").read_text())
    # (One step of 1e-9 learns nothing.)
    assert study["learning_rate"] == 0.001
    losses = [one["loss"] for one in study["choice"]]
    assert losses[0] < losses[1] - 1
    for condition in THREE:
        record = json.loads((plan.model(condition, 1) / "regreason.json").read_text())
        assert (record["arm"], record["order"]) == (condition.arm, condition.order)
        assert record["seed"] == 1
        config = yaml.safe_load((plan.out / f"configs/{condition.name}-1.yml").read_text())
        assert config["learning_rate"] == 0.001


def test_its_figures_are_means_over_the_scored_documents(plan: Plan) -> None:
    study = json.loads((plan.out / "study.json").read_text())["conditions"]
    label_only, _, explained = THREE
    for condition, task, metric in (
        (label_only, "regreason_", "acc"),
        (explained, "regreason-gen_", "acc"),
        (explained, "regreason-gen_", "forced_acc"),
    ):
        by_task = []
        for file in plan.results(condition, 1).rglob(f"samples_{task}*.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            by_task.append(statistics.fmean(row[metric] for row in rows))
        assert len(by_task) == 18
        (found,) = study[condition.name]["by_seed"][metric]
        assert found == pytest.approx(statistics.fmean(by_task))
    assert 0 < study["label_only"]["by_seed"]["activation_entropy_mid"][0] < 1


def test_differences_and_intervals_are_those_of_compare(plan: Plan) -> None:
    out = plan.out / "compared"
    folders = [f"{name}={plan.out / 'results' / name}" for name in NAMES[:2]]
    assert main(["compare", *folders, "--baseline", "label_only", "--out", str(out)]) == 0
    theirs, ours = load(out / "comparison.json"), load(plan.out / "comparison.json")
    assert (ours.pooled, ours.pooled_scores) == (theirs.pooled, theirs.pooled_scores)
    assert (plan.out / "report.html").is_file()
    text = (plan.out / "study.md").read_text()
    found = theirs.pooled["explanation"]["nll"]
    assert found.low is not None
    (row,) = re.findall(r"^\| explanation \| .*", text.split("## Label first")[1], re.MULTILINE)[:1]
    assert f"{found.value:+.3f}" in row
    assert f"({found.low:+.3f} to {found.high:+.3f})" in row


def test_the_report_says_what_it_is(plan: Plan) -> None:
    text = (plan.out / "study.md").read_text()
    assert "GENERATED" in text
    assert "of these trained models only" in text
    assert "| label_only (mean) |" in text
    before, after = text.split("## Explanation first")
    assert "explanation-explanation_first" in after
    assert "explanation-explanation_first" not in before
    # One seed has no interval over seeds.
    assert "±" not in after.split("| condition")[1]
    assert (plan.out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_study_runs_nothing_again(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    before = (plan.out / "study.json").read_bytes()
    assert run_plan(plan, jobs=2) == 0
    out = capsys.readouterr().out
    assert out.count("done before") == out.count("[bold]") + out.count("  $ axolotl") + out.count(
        "  $ regreason"
    )
    assert (plan.out / "study.json").read_bytes() == before


def test_the_interval_is_students() -> None:
    values = [0.31, 0.4, 0.35, 0.52, 0.29]
    mean = Mean.of(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean.half_width is not None
    assert mean.value - mean.half_width == pytest.approx(expected.low)
    assert mean.value + mean.half_width == pytest.approx(expected.high)
    assert Mean.of(values[:2]).half_width is None
