"""The GitHub action's scripts, run in bash with the tiny model and the stored baseline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.stock_tasks import STOCK_RESULTS

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github/actions/regreason-eval/action.yml"
BASELINE = ROOT / "tests/baseline"


def run_step(name: str, workspace: Path, inputs: dict[str, Any], **environment: str) -> Any:
    """Run a step's script in the root of the repository, as a GitHub runner does."""
    action = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    (step,) = [step for step in action["runs"]["steps"] if step["name"] == name]
    values = {key: str(one.get("default", "")) for key, one in action["inputs"].items()} | inputs
    env = {
        key: values[value.removeprefix("${{ inputs.").removesuffix(" }}")]
        for key, value in step["env"].items()
    }
    programs = Path(sys.executable).parent
    inherited = {key: value for key, value in os.environ.items() if key != "REGREASON_DATA"}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=ROOT,
        env={
            **inherited,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "GITHUB_STEP_SUMMARY": str(workspace / "summary.md"),
            "GITHUB_OUTPUT": str(workspace / "output"),
            **env,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """The inputs that the workflow eval-self passes to the action."""
    path = ROOT / ".github/workflows/eval-self.yml"
    inputs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["tiny"]["with"]
    return {key: str(value) for key, value in inputs.items() if key != "job_time_limit"}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]) -> dict[str, Any]:
    """The inputs, with an output folder that holds the results of the step Score."""
    workspace = tmp_path_factory.mktemp("action with a blank")
    inputs = {**given, "out": str(workspace / "out")}
    done = run_step("Score", workspace, inputs)
    assert done.returncode == 0, done.stderr[-3000:]
    return inputs


def test_the_tiny_model_passes_against_the_kept_baseline(
    scored: dict[str, Any], tmp_path: Path
) -> None:
    done = run_step("Gate", tmp_path, scored)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("PASS: accuracy changed by ")
    assert (tmp_path / "summary.md").read_text().startswith("### Gate: PASS\n")
    assert (tmp_path / "output").read_text() == "exit_code=0\n"
    out = Path(scored["out"])
    assert (out / "gate/gate.txt").read_text() == done.stdout
    assert (out / "gate/junit.xml").is_file()


def test_a_baseline_that_was_better_fails_the_step(scored: dict[str, Any], tmp_path: Path) -> None:
    """With every answer of the stored baseline made right, the candidate is far worse."""
    better = tmp_path / "better"
    shutil.copytree(BASELINE, better)
    for file in better.glob("samples_*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["filtered_resps"][row["doc"]["label"] - 1][0] = "100.0"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (results,) = better.glob("results_*.json")
    content = json.loads(results.read_text())
    for values in content["results"].values():
        values["acc,none"] = 1.0
    results.write_text(json.dumps(content))
    done = run_step("Gate", tmp_path, {**scored, "baseline": str(better)})
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL: accuracy changed by -")
    assert (tmp_path / "output").read_text() == "exit_code=1\n"
    assert "### Gate: FAIL" in (tmp_path / "summary.md").read_text()


RULES = """
rules:
  - {tasks: mmlu, metric: acc, max_drop: 0.4}
  - {tasks: gsm8k, metric: "exact_match,flexible-extract", max_drop: 0.5, min: 0.05}
"""


def test_a_file_of_rules_gates_any_tasks_of_lm_eval(tmp_path: Path) -> None:
    out, rules = tmp_path / "out of a job", tmp_path / "gate.yml"
    shutil.copytree(STOCK_RESULTS / "0.4.13/main/tuned", out / "results")
    rules.write_text(RULES)
    baseline = STOCK_RESULTS / "0.4.13/main/base"
    inputs = {"baseline": str(baseline), "out": str(out), "rules": str(rules)}
    done = run_step("Gate", tmp_path, inputs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("PASS: 2 rules: 2 shown\n")
    assert (tmp_path / "output").read_text() == "exit_code=0\n"
    assert (tmp_path / "summary.md").read_text().startswith("### Gate: PASS\n\n2 rules: 2 shown.\n")
    assert json.loads((out / "gate/gate.json").read_text())["verdict"] == "pass"
    assert (out / "gate/junit.xml").read_text().count("<testsuite ") == 2
    # An input that the rules replace is refused, not ignored.
    done = run_step("Gate", tmp_path, {**inputs, "max_drop": "0.1"})
    assert done.returncode == 2
    assert "--max-drop does not go with --rules" in done.stderr
    done = run_step("Page", tmp_path, inputs)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "gsm8k" in (out / "page/report.html").read_text(encoding="utf-8")


def test_a_missing_baseline_is_wrong_input(scored: dict[str, Any], tmp_path: Path) -> None:
    done = run_step("Gate", tmp_path, {**scored, "baseline": "no/such$(touch owned)"})
    assert done.returncode == 2
    assert "no such results folder" in done.stderr
    assert (tmp_path / "output").read_text() == "exit_code=2\n"
    assert not (ROOT / "owned").exists()


def test_the_page_is_made(scored: dict[str, Any], tmp_path: Path) -> None:
    done = run_step("Page", tmp_path, scored)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (Path(scored["out"]) / "page/report.html").is_file()


def test_scoring_ends_at_the_time_limit(given: dict[str, Any], tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "regreason").write_text("#!/bin/sh\nexec sleep 60\n")
    (programs / "regreason").chmod(0o755)
    inputs = {**given, "out": str(tmp_path / "out"), "time_limit": "0.01"}
    done = run_step("Score", tmp_path, inputs, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 124
    assert "::error::scoring took longer than the time limit" in done.stdout
