"""`regreason eval`: lm-eval's own command with RegReason's model and tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.axolotl import scorers
from helpers.scoring import evaluate
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM

from regreason_plugin.core.cost import SCORING, ScoringCost
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate.eval_command import main
from regreason_plugin.evaluate.model import RegReasonHF, register

pytestmark = pytest.mark.integration

TASK = "regreason_coqa_on_topic"


@pytest.fixture(autouse=True)
def _own_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])


def test_registered_beside_the_models_of_lm_eval() -> None:
    register()
    register()
    assert get_model("regreason-hf") is RegReasonHF
    assert get_model("hf") is HFLM


def test_same_figures_as_hf_and_tasks_found_beside_the_users_own(
    tiny_model: Path, data_folder: DataFolder, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.yaml").write_text("group: regreason-mine\ntask:\n  - " + TASK + "\n")
    code = main(
        [
            *("--model", "regreason-hf", "--model_args", f"pretrained={tiny_model}"),
            *("--tasks", "regreason-mine", "--include_path", str(own), "--device", "cpu"),
            *("--metadata", json.dumps({"data_dir": str(data_folder.path)})),
            *("--limit", "5", "--output_path", str(tmp_path / "out"), "--batch_size", "4"),
        ]
    )
    assert code == 0
    (file,) = tmp_path.glob("out/*/results_*.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    took = ScoringCost.model_validate(content["config"][SCORING])
    assert took.documents == 5
    assert 0 < took.seconds < float(content["total_evaluation_time_seconds"])
    found = content["results"][TASK]
    hf = HFLM(pretrained=str(tiny_model), device="cpu", batch_size=4)
    expected = evaluate(hf, [TASK], data_folder.path, limit=5)["results"][TASK]
    for key, value in expected.items():
        if key.endswith(",none"):
            assert found[key] == pytest.approx(value), key


def test_a_mistake_is_its_exit_code(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        [
            *("--model", "regreason-hf", "--model_args", f"pretrained={tiny_model}"),
            *("--tasks", TASK, "--metadata", json.dumps({"data_dir": str(tmp_path / "none")})),
            *("--device", "cpu"),
        ]
    )
    assert code == 2
    assert "no such data folder" in capsys.readouterr().err
    assert main(["--no-such-flag", "x"]) == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("pretrained=x,peft=a,b", "'b'"),
        ("pretrained=x,peft", "'peft'"),
        ("pretrained", "--model_args"),
        ('{"pretrained":', "JSON"),
    ],
)
def test_model_arguments_that_are_no_pairs_are_one_sentence(
    given: str, says: str, tmp_path: Path
) -> None:
    run = scorers().run("regreason", "eval", "--tasks", TASK, "--model_args", given, cwd=tmp_path)
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert says in run.stderr.strip().splitlines()[-1]
