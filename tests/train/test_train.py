"""`axolotl train` as typed, with the config and the sweep files that ship."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.axolotl import PYTHON, ROOT, axolotl_train, forks
from helpers.scoring import PlainScorer
from helpers.tiny_base import make_untrained_base
from helpers.training_data import build_data, config, read_rows, write_config
from safetensors.torch import load_file
from transformers import AutoTokenizer

from regreason_plugin.cli import main
from regreason_plugin.data_folder.arms import ARMS, PAPER_ARMS
from regreason_plugin.data_folder.folder import open_data_folder

pytestmark = pytest.mark.e2e

CONFIG = "axolotl_configs/cpu/lora.yml"
# The shipped config, with a random model that is 30 times smaller, and fewer and larger steps.
OPTIONS = [
    *("--num-epochs=12", "--learning-rate=0.01", "--micro-batch-size=8"),
    "--eval-strategy=epoch",
]


@dataclass(frozen=True)
class Run:
    """The files of one training."""

    output: str
    files: set[str]
    record: dict[str, Any]
    adapter: dict[str, Any]

    @property
    def losses(self) -> list[float]:
        """Losses of all logged steps."""
        return [float(loss) for loss in re.findall(r"'loss': '([\d.]+)'", self.output)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the shipped configs, and with data where the configs expect it."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "axolotl_configs").symlink_to(ROOT / "axolotl_configs")
    (folder / "runs/demo").mkdir(parents=True)
    build_data(folder / "runs/demo/data")
    return folder


@pytest.fixture(scope="module")
def single(checkout: Path, tiny_model: Path) -> Run:
    """A training of one arm, with the command in the config's head."""
    return _train(checkout, tiny_model, checkout / "axolotl_configs/arms/label_only.yml")


def _train(checkout: Path, model: Path, sweep: Path, *more: str, arm: str = "label_only") -> Run:
    options = [*OPTIONS, f"--base-model={model}", "--logging-steps=1", *more]
    done = axolotl_train(CONFIG, "--sweep", sweep, *options, cwd=checkout, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    output = checkout / "runs/demo/models" / arm
    return Run(
        done.stdout + done.stderr,
        {path.name for path in output.iterdir()},
        json.loads((output / "regreason.json").read_text()),
        load_file(output / "adapter_model.safetensors"),
    )


@pytest.mark.slow
def test_the_shipped_config_trains_an_arm(single: Run, checkout: Path) -> None:
    assert {"adapter_model.safetensors", "adapter_config.json", "regreason.json"} <= single.files
    assert not [name for name in single.files if name.startswith(("sweep", "checkpoint"))]
    assert sorted(path.name for path in checkout.iterdir()) == ["axolotl_configs", "runs"]
    assert sorted(path.name for path in (checkout / "runs/demo/models").iterdir()) == ["label_only"]
    assert len(re.findall(r"'eval_loss'", single.output)) >= 12


@pytest.mark.slow
def test_the_record_says_what_was_trained(single: Run, checkout: Path, tiny_model: Path) -> None:
    data = open_data_folder(checkout / "runs/demo/data")
    rows = data.manifest.counts["train"].rows
    record = single.record
    assert record["arm"] == "label_only"
    assert record["order"] == "label_first"
    assert record["data"] == {"path": "runs/demo/data", "sha256": data.sha256, "origin": "rated"}
    assert record["base_model"] == str(tiny_model)
    assert record["seed"] == 1
    assert (record["rows"], record["steps"], record["epochs"]) == (rows, rows // 8 * 12, 12.0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    targets = [f" {row['label']}</s>" for row in read_rows(data.path, "train/label_only.jsonl")]
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in targets)
    assert record["target_tokens"] == tokens * 12
    assert set(record["versions"]) == {"regreason", "axolotl", "torch", "transformers", "peft"}


@pytest.mark.slow
def test_training_has_an_effect(single: Run, checkout: Path, tiny_model: Path) -> None:
    losses = single.losses
    assert len(losses) == single.record["steps"]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    rows = read_rows(checkout / "runs/demo/data", "train/label_only.jsonl")[:20]
    before = PlainScorer(tiny_model)
    after = PlainScorer(tiny_model, checkout / "runs/demo/models/label_only")
    gains = []
    for row in rows:
        prompt, label = row["messages"][0]["content"], row["label"]
        old, new = before.labels(prompt), after.labels(prompt)
        gains.append(new[label - 1] - old[label - 1])
    assert sum(gains) / len(gains) > 1
    assert min(gains) > 0


@pytest.mark.slow
def test_the_sweep_of_all_arms_gives_a_folder_each_and_the_same_seed_the_same_adapter(
    single: Run, checkout: Path, tiny_model: Path
) -> None:
    # One process, so that Axolotl does not start seven times.
    sweep = checkout / "axolotl_configs/arms/all.yml"
    again = _train(checkout, tiny_model, sweep, PYTHON)
    models = checkout / "runs/demo/models"
    assert sorted(path.name for path in models.iterdir()) == sorted(ARMS)
    for arm in ARMS:
        record = json.loads((models / arm / "regreason.json").read_text())
        assert record["arm"] == arm
        assert (record["rows"], record["steps"]) == (again.record["rows"], again.record["steps"])
        assert (record["target_tokens"] > 5 * again.record["target_tokens"]) == (
            arm != "label_only"
        )
    costs = [record.pop("cost") for record in (again.record, single.record)]
    assert costs[0]["tokens"] == costs[1]["tokens"]
    assert again.record == single.record
    assert all((again.adapter[name] == single.adapter[name]).all() for name in single.adapter)


def test_every_sweep_file_names_known_arms() -> None:
    found = {
        file.stem: yaml.safe_load(file.read_text())
        for file in (ROOT / "axolotl_configs/arms").glob("*.yml")
    }
    expected = {arm: [arm] for arm in ARMS} | {"paper": list(PAPER_ARMS), "all": list(ARMS)}
    assert found == {name: {"regreason_arm": arms} for name, arms in expected.items()}


def test_the_base_config_trains_from_random_weights(tmp_path: Path) -> None:
    (tmp_path / "axolotl_configs").symlink_to(ROOT / "axolotl_configs")
    untrained = tmp_path / "runs/tiny-base/untrained"
    make_untrained_base(untrained, per_dataset=200)
    options = ["--max-steps=30", "--logging-steps=1"]
    done = axolotl_train("axolotl_configs/cpu/base.yml", *options, PYTHON, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [float(x) for x in re.findall(r"'loss': '([\d.]+)'", done.stdout + done.stderr)]
    # With random weights, the loss starts at the logarithm of the vocabulary size.
    assert losses[0] == pytest.approx(math.log(1280), abs=0.3)
    assert losses[-1] < losses[0] - 1
    before = load_file(untrained / "model.safetensors")
    after = load_file(tmp_path / "runs/tiny-base/model/model.safetensors")
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before)


def test_a_killed_training_leaves_no_record_and_no_other_takes_its_folder(
    checkout: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The record of an earlier, finished training must not pass for that of the new one.
    record = tmp_path / "models/explanation/regreason.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    data = checkout / "runs/demo/data"
    values = config(tiny_model, data, tmp_path, num_epochs=10_000, output_dir=str(record.parent))
    file = write_config(tmp_path / "config.yml", values)
    other = write_config(tmp_path / "other.yml", {**values, "regreason_arm": "shuffled"})
    with forks().start("axolotl", "train", file, PYTHON, cwd=tmp_path) as process:
        log = record.parent / "log.jsonl"
        while process.poll() is None and not (log.is_file() and b'"loss"' in log.read_bytes()):
            time.sleep(0.05)
        begun = log.stat().st_ino
        at_once = axolotl_train(other, PYTHON, cwd=tmp_path)
        assert process.poll() is None
        process.kill()
    assert at_once.returncode == 2
    assert f"another run of Axolotl is using {record.parent};" in at_once.stderr
    assert log.stat().st_ino == begun
    assert (record.parent / "adapter_config.json").is_file()
    assert not record.exists()
    assert main(["check", str(file)]) == 0
    assert main(["check", str(other)]) == 2
    assert f"{record.parent} holds an unfinished training with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "code"), [("python", 2), pytest.param("accelerate", 1, marks=pytest.mark.slow)]
)
def test_a_wrong_config_ends_with_one_line_and_writes_nothing(
    launcher: str, code: int, checkout: Path, tiny_model: Path, tmp_path: Path
) -> None:
    # accelerate, Axolotl's default launcher, turns any failure into 1 and adds a traceback.
    values = config(tiny_model, checkout / "runs/demo/data", tmp_path / "out", val_set_size=0.1)
    file = write_config(tmp_path / "config.yml", values)
    done = axolotl_train(file, f"--launcher={launcher}", cwd=tmp_path)
    assert done.returncode == code
    lines = [line for line in done.stderr.splitlines() if line.startswith("regreason: ")]
    assert len(lines) == 1
    assert f"{file}, field val_set_size: must be 0" in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]
    assert "regreason_plugin" not in done.stderr
    if launcher == "python":
        assert "Traceback" not in done.stderr
