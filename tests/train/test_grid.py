"""A whole grid by its commands: a sweep of arms and seeds, scoring of each model, and one table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.axolotl import PYTHON, axolotl_train, programs, scorers
from helpers.scoring import PlainScorer
from helpers.training_data import build_data, config, read_rows, write_config

from regreason_plugin.comparison.comparison import load_comparison

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ARMS, SEEDS, LIMIT = ("label_only", "explanation"), (1, 2), 10
TASK = "regreason_coqa_on_topic"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder in which the sweep has run; its models are in ``models``."""
    folder = tmp_path_factory.mktemp("grid")
    build_data(folder / "data")
    stale = folder / "models/label_only-1/eval/base/results_2020-01-01T00-00-00.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    values = config(
        tiny_model,
        Path("data"),
        Path(),
        output_dir="models/{arm}-{seed}",
        max_steps=20,
        regreason_budget="steps",
        learning_rate=0.01,
        regreason_eval=TASK,
        regreason_eval_limit=LIMIT,
    )
    write_config(folder / "config.yml", values)
    sweep = {"regreason_arm": list(ARMS), "seed": list(SEEDS)}
    (folder / "sweep.yml").write_text(yaml.safe_dump(sweep))
    programs()  # for the scoring after each training
    done = axolotl_train("config.yml", "--sweep", "sweep.yml", PYTHON, cwd=folder, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "console.txt").write_text(done.stdout)
    return folder


def results_of(model: Path) -> dict[str, Any]:
    """The one results file beside a model."""
    (file,) = model.glob("eval/**/results_*.json")
    return dict(json.loads(file.read_text()))


def test_every_run_is_scored_with_its_own_adapter(grid: Path, tiny_model: Path) -> None:
    models = grid / "models"
    names = {f"{arm}-{seed}" for arm in ARMS for seed in SEEDS}
    assert {folder.name for folder in models.iterdir()} == names
    scores = {}
    for name in names:
        content = results_of(models / name)
        assert Path(content["config"]["model_args"]["peft"]).name == name
        scores[name] = content["results"][TASK]["nll,none"]
        assert "Initializing regreason-hf" in (models / name / "eval.log").read_text()
    assert len({round(score, 6) for score in scores.values()}) == len(names)
    # The expected value comes from transformers alone, without lm-eval.
    rows = read_rows(grid / "data", "test.jsonl")[:LIMIT]
    for name in ("label_only-2", "explanation-1"):
        scorer = PlainScorer(tiny_model, models / name)
        losses = []
        for row in rows:
            logs = scorer.labels(row["messages"][0]["content"])
            whole = math.log(math.fsum(map(math.exp, logs)))
            losses.append(whole - logs[row["label"] - 1])
        assert scores[name] == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_what_lm_eval_says_is_on_the_console(grid: Path) -> None:
    shown = (grid / "console.txt").read_text()
    assert shown.count("Scoring continuations: 100%") == len(ARMS) * len(SEEDS)
    assert f"regreason: scoring models/label_only-1 on {TASK}" in shown


def test_the_card_has_the_scores(grid: Path) -> None:
    model = grid / "models/explanation-2"
    text = (model / "README.md").read_text()
    values = results_of(model)["results"][TASK]
    nll = f"{values['nll,none']:.3f} ± {values['nll_stderr,none']:.3f}"
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {TASK} "))
    assert nll in row
    assert "# explanation, seed 2" in text
    # Axolotl's own card, which holds the whole config, is gone.
    assert "micro_batch_size" not in text


def test_one_command_makes_the_table_of_the_grid(grid: Path, tmp_path: Path) -> None:
    command = ["compare", "models", "--baseline", "label_only", "--out", str(tmp_path)]
    done = scorers().run("regreason", *command, cwd=grid, timeout=60)
    assert done.returncode == 0, done.stderr
    saved = load_comparison(tmp_path / "comparison.json")
    assert saved.seeds == {arm: list(SEEDS) for arm in ARMS}
    accuracy = {
        (arm, seed): results_of(grid / f"models/{arm}-{seed}")["results"][TASK]["acc,none"]
        for arm in ARMS
        for seed in SEEDS
    }
    for arm in ARMS:
        by_seed = [accuracy[arm, seed] for seed in SEEDS]
        assert saved.scores[arm][TASK]["acc"].by_seed == pytest.approx(by_seed)
    means = {arm: sum(accuracy[arm, seed] for seed in SEEDS) / len(SEEDS) for arm in ARMS}
    difference = saved.differences["explanation"][TASK]["acc"]
    assert difference.value == pytest.approx(means["explanation"] - means["label_only"])
    assert difference.over == "groups"
    assert saved.settings[0].documents == LIMIT
    # The report has each model's training settings and learning curve beside its scores.
    assert {(run.arm, run.seed, run.training["steps"]) for run in saved.runs} == {
        (arm, seed, 20) for arm in ARMS for seed in SEEDS
    }
    assert (tmp_path / "report.html").stat().st_size > 10_000
