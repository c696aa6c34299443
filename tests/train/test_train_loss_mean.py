"""The loss's mean over a whole step is the same however the step is split, smoothed or not.

The targets differ in length; with equal lengths, a micro-batch would have the mean of the step. One
command, a sweep, makes all runs on one process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.axolotl import PYTHON, axolotl_train
from helpers.step_training import (
    LEARNING_RATE,
    STEPS,
    Trained,
    Trainings,
    same_adapter,
    same_log,
    same_training,
)
from helpers.training_data import write_config

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SMOOTHING = {"plain": 0.0, "smoothed": 0.3}
MEAN = {"regreason_loss_mean": "step", "regreason_label_share": None}
CUTS = {"plain": ("whole", "rows", "fours", "packed"), "smoothed": ("rows", "fours", "packed")}
TEXTS = ["rain", "ha " * 20, "a"]
EVALUATED = {"eval_strategy": "steps", "eval_steps": STEPS}


@pytest.fixture(scope="module")
def uneven(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(tiny_model, tmp_path_factory.mktemp("uneven"), TEXTS)


@pytest.fixture(scope="module")
def runs(uneven: Trainings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Trainings of three steps with all rows per step; ``own ...`` have Axolotl's own loss."""
    folder, rows = tmp_path_factory.mktemp("loss_mean"), uneven.rows
    cuts = {
        "whole": {"micro_batch_size": rows},
        "rows": {"micro_batch_size": 1, "gradient_accumulation_steps": rows},
        "fours": {"micro_batch_size": 4, "gradient_accumulation_steps": rows // 4},
        "packed": {
            "micro_batch_size": 1,
            "sample_packing": True,
            "sequence_len": 4096,
            "eval_sample_packing": False,
        },
    }
    changes: dict[str, dict[str, Any]] = {}
    for kind, smoothing in SMOOTHING.items():
        both = {**EVALUATED, "regreason_label_share": None, "regreason_label_smoothing": smoothing}
        for number, cut in enumerate(CUTS[kind]):
            size = {"eval_batch_size": number + 1}
            changes[f"{kind} {cut}"] = {**both, **size, **cuts[cut], "regreason_loss_mean": "step"}
        changes[f"own {kind} whole"] = {**both, **cuts["whole"]}
    changes["own plain rows"] = {**EVALUATED, "regreason_label_share": None, **cuts["rows"]}
    named = {"regreason_loss_mean": "micro_batch"}
    changes["named plain rows"] = {**changes["own plain rows"], **named}
    pairs = [
        {**values, "output_dir": str(folder / name / "{arm}")} for name, values in changes.items()
    ]
    file = uneven.config("all", rows)
    sweep = write_config(folder / "sweep.yml", {"_": pairs})
    done = axolotl_train(file, "--sweep", sweep, PYTHON, cwd=folder, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: Trained(folder / name / "explanation") for name in changes}


def lines(found: Trained) -> list[dict[str, Any]]:
    """The log of a training."""
    return list(map(json.loads, (found.folder / "log.jsonl").read_text().splitlines()))


def losses(found: Trained, key: str = "eval_loss") -> list[float]:
    """Losses of the log, step by step."""
    return [line[key] for line in lines(found) if key in line]


@pytest.mark.parametrize("kind", SMOOTHING)
def test_a_mean_over_the_step_is_that_of_one_batch_however_it_is_cut(
    kind: str, runs: dict[str, Trained]
) -> None:
    # Axolotl's own loss, which test_label_smoothing_is_torchs compares with torch.
    whole = runs[f"own {kind} whole"]
    for cut in CUTS[kind]:
        found = runs[f"{kind} {cut}"]
        same_training(found, whole)
        assert losses(found, "loss") == pytest.approx(losses(whole, "loss"), abs=1e-5)
        assert found.record["loss_mean"] == "step"


def test_axolotls_own_is_another_loss_where_a_step_is_cut(runs: dict[str, Trained]) -> None:
    whole, rows = runs["own plain whole"], runs["own plain rows"]
    # The difference is a hundred times larger than between the other trainings.
    assert abs(losses(rows, "loss")[0] - losses(whole, "loss")[0]) > 1e-3
    assert rows.record["loss_mean"] is None


def test_so_is_the_loss_of_an_evaluation(runs: dict[str, Trained]) -> None:
    for kind, cuts in CUTS.items():
        first, *others = [losses(runs[f"{kind} {cut}"]) for cut in cuts]
        assert first
        for other in others:
            assert other == pytest.approx(first, rel=1e-5)
    (*_, last) = [line for line in lines(runs["plain rows"]) if "eval_loss" in line]
    low, high = sorted([last["eval_label_loss"], last["eval_explanation_loss"]])
    assert low <= last["eval_loss"] <= high


def test_micro_batch_is_a_name_of_axolotls_own(runs: dict[str, Trained]) -> None:
    ours, own = runs["named plain rows"], runs["own plain rows"]
    assert losses(ours, "loss") == losses(own, "loss")
    weights = own.adapter()
    assert all(torch.equal(values, weights[name]) for name, values in ours.adapter().items())


def test_two_processes_take_the_same_step(uneven: Trainings, runs: dict[str, Trained]) -> None:
    two = uneven(
        "two",
        processes=2,
        batch=uneven.rows // 4,
        gradient_accumulation_steps=2,
        regreason_label_smoothing=SMOOTHING["smoothed"],
        **MEAN,
        **EVALUATED,
    )
    whole = runs["own smoothed whole"]
    same_training(two, whole)
    same_adapter(two.adapter(1), whole.adapter(1), 1e-5 * LEARNING_RATE)
    same_log(two, whole)
    assert losses(two) == pytest.approx(losses(runs["smoothed rows"]), rel=1e-5)
    assert (two.record["processes"], two.record["loss_mean"]) == (2, "step")
