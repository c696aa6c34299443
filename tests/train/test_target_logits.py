"""A training with logits at the targets of a loss only is the same as with all logits."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from axolotl.utils.dict import DictDefault
from helpers.axolotl import PYTHON, axolotl_train
from helpers.step_training import LEARNING_RATE, LEARNT, STEPS, Trained, Trainings, same_adapter
from helpers.tiny_families import save_family
from helpers.training_data import write_config
from torch import nn

from regreason_plugin.train.target_logits import kept_positions, why_all_logits

pytestmark = [pytest.mark.e2e]

IGNORE = -100
TEXTS = ["rain", "ha " * 20, "a"]
OWN = {"regreason_label_share": None}
PACKED = {"sample_packing": True, "micro_batch_size": 1, "sequence_len": 4096}
# Combinations of loss, batch and evaluation, by model; together they cover each of them.
WAYS: dict[str, dict[str, Any]] = {
    "mistral": {**OWN, **PACKED, "eval_sample_packing": False},
    "qwen3": {"micro_batch_size": 4, "gradient_accumulation_steps": 5, "eval_batch_size": 3},
    "llama3": {**OWN, "regreason_label_smoothing": 0.2},
    "packed share": {**PACKED, "regreason_label_smoothing": 0.2},
}
PLUGINS = ["regreason_plugin.RegReasonPlugin", "helpers.head_plugin.HeadPlugin"]


@pytest.fixture(scope="module")
def trainings(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(tiny_model, tmp_path_factory.mktemp("target_logits"), TEXTS)


@pytest.fixture(scope="module")
def runs(
    trainings: Trainings, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trained]:
    """Trainings of three steps; for each combination, one training has all logits."""
    folder, rows = tmp_path_factory.mktemp("runs"), trainings.rows
    pairs = []
    for name, way in WAYS.items():
        model = tiny_model
        if name in ("mistral", "qwen3", "llama3"):
            model = save_family(name, tiny_model, folder / name)
        for target in (True, False):
            changes = {
                "base_model": str(model),
                "micro_batch_size": rows,
                **way,
                "regreason_target_logits": target,
                "output_dir": str(folder / f"{name} {target}" / "{arm}"),
            }
            pairs.append(changes)
    everywhere = {"eval_strategy": "steps", "eval_steps": STEPS}
    file = trainings.config("all", rows, plugins=PLUGINS, **everywhere)
    sweep = write_config(folder / "sweep.yml", {"_": pairs})
    done = axolotl_train(file, "--sweep", sweep, PYTHON, cwd=folder, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        f"{name} {target}": Trained(folder / f"{name} {target}" / "explanation")
        for name in WAYS
        for target in (True, False)
    }


def lines(found: Trained) -> list[dict[str, Any]]:
    return list(map(json.loads, (found.folder / "log.jsonl").read_text().splitlines()))


def heads(found: Trained) -> list[list[int]]:
    """Number of rows and columns of the logits, batch by batch."""
    text = (found.folder.parent / "head.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradients_are_those_of_all_logits(way: str, runs: dict[str, Trained]) -> None:
    found, whole = runs[f"{way} True"], runs[f"{way} False"]
    ours, theirs = found.log(), whole.log()
    assert [one["step"] for one in ours] == list(range(1, STEPS + 1))
    for one, other in zip(ours, theirs, strict=True):
        for name in LEARNT:
            assert one[name] == pytest.approx(other[name], rel=1e-6, abs=1e-6), name
        # Axolotl's own count for its log, padding included.
        assert one["tokens/total"] == other["tokens/total"]
        assert one["tokens/trainable"] == other["tokens/trainable"]
    # With gradient descent from zero, the change in the first step is the gradient.
    same_adapter(found.adapter(1), whole.adapter(1), 1e-6 * LEARNING_RATE)


@pytest.mark.parametrize("way", WAYS)
def test_so_is_what_an_evaluation_says(way: str, runs: dict[str, Trained]) -> None:
    ours, theirs = (
        [line for line in lines(runs[f"{way} {target}"]) if "eval_loss" in line]
        for target in (True, False)
    )
    names = [one for one in theirs[-1] if one.startswith(("eval_loss", "eval_label", "eval_expl"))]
    assert len(names) >= 4
    for one, other in zip(ours, theirs, strict=True):
        for name in names:
            assert one[name] == pytest.approx(other[name], rel=1e-5), name


@pytest.mark.parametrize("way", WAYS)
def test_the_head_sees_the_targets_and_the_token_before(way: str, runs: dict[str, Trained]) -> None:
    ours, whole = heads(runs[f"{way} True"]), heads(runs[f"{way} False"])
    assert len(ours) == len(whole) > STEPS
    for (rows, columns), (all_rows, all_columns) in zip(ours, whole, strict=True):
        assert rows == 1
        assert columns < 0.6 * all_rows * all_columns
    seen = runs[f"{way} True"].log()[-1]["target_tokens_seen"]
    trained = runs[f"{way} True"].record["rows"] * STEPS
    # The evaluations read other rows, so only the sum over the training can be told.
    assert sum(columns for _, columns in ours) >= seen + trained


# --- which positions, and which trainings -------------------------------------------------


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        # A prediction is made in the column before its target.
        (["__ab_", "___c_"], ["_ab", "_c"]),
        # With two samples in one row, the last token of the first does not predict the second.
        (["_a__bc"], ["_a_bc"]),
        (["a_b_", "____"], ["a_b", ""]),
        (["____"], [""]),
    ],
)
def test_positions_are_kept_with_the_one_before(target: list[str], kept: list[str]) -> None:
    labels = torch.tensor([[IGNORE if one == "_" else ord(one) for one in row] for row in target])
    rows, columns = kept_positions(labels)
    found = ["" for _ in target]
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        found[row] += target[row][column]
    assert found == kept
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == list(
        zip(rows.tolist(), columns.tolist(), strict=True)
    )


class Takes(nn.Module):
    def forward(self, input_ids: Any, logits_to_keep: int | torch.Tensor = 0) -> None: ...


class TakesANumber(nn.Module):
    def forward(self, input_ids: Any, logits_to_keep: int = 0) -> None: ...


class TakesNone(nn.Module):
    def forward(self, input_ids: Any) -> None: ...


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module, prompt: bool) -> None:
        super().__init__()
        self.model = model
        self.active_peft_config = SimpleNamespace(is_prompt_learning=prompt)

    def get_base_model(self) -> nn.Module:
        return self.model

    def forward(self, input_ids: Any, **more: Any) -> None: ...


@pytest.mark.parametrize(
    ("model", "cfg", "devices", "expected"),
    [
        (Takes(), {}, 1, True),
        (Wrapped(Takes(), prompt=False), {}, 0, True),
        (Wrapped(Takes(), prompt=True), {}, 1, False),
        (Wrapped(TakesNone(), prompt=False), {}, 1, False),
        (TakesANumber(), {}, 1, False),
        (TakesNone(), {}, 1, False),
        (Takes(), {}, 2, False),
        (Takes(), {"context_parallel_size": 2}, 1, False),
        *(
            (Takes(), {key: True}, 1, False)
            for key in (
                "cut_cross_entropy",
                "liger_fused_linear_cross_entropy",
                "chunked_cross_entropy",
            )
        ),
        (Takes(), {"cut_cross_entropy": False, "chunked_cross_entropy": None}, 1, True),
    ],
)
def test_which_trainings_leave_logits_out(
    model: nn.Module, cfg: dict[str, Any], devices: int, expected: bool
) -> None:
    assert (why_all_logits(DictDefault(cfg), model, devices) is None) is expected
