"""Scoring, compare, gate and predict where Axolotl and DeepSpeed cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from regreason_plugin.cli import main
from regreason_plugin.core import training_extra
from regreason_plugin.data_folder.folder import DataFolder

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "axolotl_configs/cpu/lora.yml"
# Run the commands one after the other in a process in which an import of these packages fails.
PROGRAM = """
import json, shutil, sys
sys.modules |= dict.fromkeys(("axolotl", "deepspeed"))
from regreason_plugin.cli import main

commands = json.loads(sys.argv[1])
codes = [main(commands["eval"])]
shutil.copytree("out", "again")
codes += [main(commands[name]) for name in ("compare", "gate", "predict", "check")]
print("codes:", codes)
"""


@pytest.mark.e2e
def test_all_but_training_works(tiny_model: Path, data_folder: DataFolder, tmp_path: Path) -> None:
    data = str(data_folder.path)
    model = f"pretrained={tiny_model},dtype=float32"
    arms = ["first=out", "second=again", "--baseline", "first"]
    row = {"conversation": [{"role": "user", "content": "Why?"}]}
    row["conversation"].append({"role": "assistant", "content": "The river rises there."})
    (tmp_path / "new.jsonl").write_text(json.dumps(row) + "\n")
    commands = {
        "eval": [
            *("eval", "--model", "regreason-hf", "--model_args", model),
            *("--tasks", "regreason_coqa_on_topic", "--metadata", json.dumps({"data_dir": data})),
            *("--limit", "12", "--device", "cpu", "--batch_size", "8"),
            *("--log_samples", "--output_path", "out"),
        ],
        "compare": ["compare", *arms, "--out", "report"],
        "gate": ["gate", *arms, "--max-drop", "0.5"],
        "predict": [
            *("predict", "new.jsonl", "--data", data, "--setting", "coqa", "on_topic"),
            *("--out", "predicted.jsonl", "--model_args", model, "--device", "cpu"),
        ],
        "check": ["check", str(CONFIG)],
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "codes: [0, 0, 0, 0, 2]" in done.stdout, done.stdout[-2000:] + done.stderr[-4000:]
    assert "regreason: training needs Axolotl, which is not installed; " in done.stderr
    assert (tmp_path / "report/report.html").is_file()
    (line,) = (tmp_path / "predicted.jsonl").read_text().splitlines()
    assert json.loads(line)["label"] in {"1", "2", "3", "4", "5"}


@pytest.mark.parametrize("words", [["demo"], ["study", "studies/mini.yml"]])
def test_a_new_python_says_where_training_works(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(training_extra, "find_spec", lambda name: None)
    monkeypatch.setattr(training_extra, "sys", SimpleNamespace(version_info=(3, 14, 0)))
    assert main(words) == 2
    assert capsys.readouterr().err == (
        "regreason: training needs Axolotl, which Python 3.11 and 3.12 can install but 3.14 "
        "cannot; scoring, compare, gate and predict work here\n"
    )
