"""`axolotl train` does what `regreason check` has predicted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.axolotl import PYTHON, axolotl_train
from helpers.training_data import build_data, config, write_config

from regreason_plugin.cli import main

pytestmark = pytest.mark.e2e


def test_steps_and_tokens_are_those_of_the_training(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """40 rows, 16 per step, in two epochs: three steps per epoch, and the last is half full."""
    data = build_data(tmp_path / "data")
    values = config(
        tiny_model, data.path, tmp_path, micro_batch_size=16, num_epochs=2, logging_steps=1
    )
    values["lora_dropout"] = 0.1
    file = write_config(tmp_path / "config.yml", values)
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(file)]) == 0
    said = capsys.readouterr()
    facts = dict(re.findall(r"^(\w[\w' ]+?)  +(\S.*?) *$", said.out, flags=re.MULTILINE))
    done = axolotl_train(file, PYTHON, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "models/explanation/regreason.json").read_text())
    assert (record["rows"], record["steps"]) == (int(facts["Rows"]), int(facts["Steps"]))
    assert record["epochs"] == pytest.approx(float(facts["Epochs"]), abs=1e-3)
    label, other = int(facts["Label tokens"]), int(facts["Other target tokens"].replace(",", ""))
    assert record["target_tokens"] == round((label + other) * record["epochs"])
    log = re.findall(r"\{'loss'.*?\}", done.stdout + done.stderr)
    seen = {
        name: [int(float(re.findall(rf"'{name}': '?([\d.e+]+)", line)[0])) for line in log]
        for name in ("label_tokens_seen", "target_tokens_seen")
    }
    assert len(log) == 6
    assert seen["label_tokens_seen"][2] == label
    assert seen["target_tokens_seen"][2] == label + other
    # Both commands print the warnings, in the same words.
    for wanted in ("field lora_dropout: is 0.1: this regulariser", "different numbers of tokens"):
        (line,) = [line for line in said.err.splitlines() if wanted in line]
        assert f"regreason: {line}" in done.stderr.splitlines()
    # The finished model does not stop the same config, but it stops another config.
    assert main(["check", str(file)]) == 0
    assert main(["check", str(file), "--lora-dropout", "0.2"]) == 2
    assert "holds a model trained with another config" in capsys.readouterr().err
