"""Files that grow line by line, and the plugin's part of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.training_curves import LineFile, evaluated_accuracy
from regreason_plugin.train.checkpoint import read_state, write_state


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_step_has_one_line_of_each_kind(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "new/log.jsonl")
    file.add(1, {"loss": 2.0, "ppl": float("inf"), "grad_norm": float("nan")})
    file.add(1, {"eval_loss": 3.0})
    file.add(1, {"probe/output_entropy": 1.5})
    file.add(1, {"eval_loss": 4.0})
    file.add(2, {"loss": 1.0})
    file.add(2, {"mine": 1})
    file.add(2, {"train_loss": 1.5})
    assert lines(tmp_path / "new/log.jsonl") == [
        {"step": 1, "loss": 2.0, "ppl": None, "grad_norm": None},
        {"step": 1, "eval_loss": 3.0},
        {"step": 1, "probe/output_entropy": 1.5},
        {"step": 2, "loss": 1.0},
        {"step": 2, "mine": 1},
        {"step": 2, "train_loss": 1.5},
    ]


def test_a_resumed_training_goes_on_after_the_checkpoints_step(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    file = LineFile(path)
    for step in (1, 2, 3, 4):
        file.add(step, {"loss": float(step)})
    with path.open("ab") as stream:
        stream.write(b'{"step":5,"lo')
    file = LineFile(path, step=2)
    file.add(2, {"loss": 20.0})
    file.add(2, {"eval_loss": 2.0})
    file.add(3, {"loss": 30.0})
    assert lines(path) == [
        {"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.0},
        {"step": 3, "loss": 30.0},
    ]  # fmt: skip
    # A new training starts a new file, and so does a training whose file is gone.
    LineFile(path)
    assert not path.exists()
    LineFile(path, step=2).add(3, {"loss": 1.0})
    assert lines(path) == [{"step": 3, "loss": 1.0}]


def test_a_checkpoint_is_of_the_same_training(tmp_path: Path) -> None:
    state = {"step": 4, "arm": "filler", "processes": 2, "tally": {"label_tokens": 3}}
    write_state(tmp_path, state)
    with pytest.raises(UserError, match="has no trainer_state.json, so it is incomplete"):
        read_state(tmp_path, {"arm": "filler"})
    (tmp_path / "trainer_state.json").write_text("{}")
    assert read_state(tmp_path, {"arm": "filler", "processes": 2}) == state
    with pytest.raises(UserError, match="written with processes 2, but this training has 1"):
        read_state(tmp_path, {"arm": "filler", "processes": 1})
    (tmp_path / "regreason_state.json").unlink()
    with pytest.raises(UserError, match="so this version of the plugin did not write it"):
        read_state(tmp_path, {})


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ({"eval_loss": 1.0, "eval_label_acc": 0.5}, ("label_acc", 0.5)),
        ({"eval_label_token_acc": 0.9}, ("label_token_acc", 0.9)),
        ({"eval_label_acc_after_explanation": 1}, ("label_acc_after_explanation", 1.0)),
        ({"eval_label_acc": None}, None),
        ({"loss": 1.0, "label_acc": 0.5}, None),
    ],
)
def test_an_evaluations_accuracy_comes_with_its_name(
    line: dict[str, Any], found: tuple[str, float] | None
) -> None:
    assert evaluated_accuracy(line) == found
