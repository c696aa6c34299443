"""Scoring after the training: errors that are found before it, and the process that scores."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from helpers.training_data import build_data
from lm_eval.utils import simple_parse_args_string

from regreason_plugin.core.cost import Machine, TrainingCost
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.data_folder.folder import DataFolder, open_data_folder
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand
from regreason_plugin.train import scoring
from regreason_plugin.train.plugin import RegReasonPlugin
from regreason_plugin.train.scoring import Scoring, clear, command, known_tasks, read_scoring

COST = TrainingCost(
    seconds=61.2, tokens=1234, peak_memory_mib=512.0, peak_gpu_mib=None, machine=Machine.here()
)
TASK_FILES = Path(__file__).parents[2] / "lm_eval_tasks"


@pytest.fixture(scope="module")
def one_setting(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """A data folder with rows of coqa on_topic only."""
    return build_data(tmp_path_factory.mktemp("data") / "DATA", rows=30)


def config(output: Path, **changes: Any) -> Any:
    """A completed config, with the keys that the scoring reads."""
    keys = (
        *("revision_of_model", "trust_remote_code", "load_in_8bit", "load_in_4bit"),
        *("bnb_config_kwargs", "tokenizer_config", "lora_dropout"),
        *("regreason_label_share", "regreason_loss_mean", "regreason_class_weights"),
        "regreason_prefix_packing",
        *("regreason_budget", "regreason_target_tokens"),
    )
    values = {
        **dict.fromkeys(keys),
        "adapter": "lora",
        "base_model": "a/base",
        "output_dir": str(output),
        "torch_dtype": torch.float32,
        "datasets": [SimpleNamespace(type="regreason_plugin.train.strategy")],
        "seed": 1,
        "learning_rate": 1e-3,
        "regreason_label_smoothing": 0.0,
        "weight_decay": 0.0,
    }
    return SimpleNamespace(**{**values, **changes})


def test_our_names_are_those_of_the_task_files() -> None:
    files = [yaml.load(p.read_text(), yaml.BaseLoader) for p in TASK_FILES.rglob("*.yaml")]
    tasks = {file["task"]: [file["task"]] for file in files if "group" not in file}
    groups = {file["group"]: file["task"] for file in files if "group" in file}
    assert {name: sorted(found) for name, found in known_tasks(EIGHTEEN).items()} == {
        name: sorted(found) for name, found in {**tasks, **groups}.items()
    }


@pytest.mark.parametrize(
    "given", ["regreason_*", "regreason-coqa, regreason_cornell_*", ["regreason"]]
)
def test_names_of_tasks_groups_and_globs_are_taken(data_folder: DataFolder, given: Any) -> None:
    found = read_scoring({"regreason_eval": given, "regreason_eval_limit": 3}, data_folder, "c.yml")
    assert found is not None
    assert found.limit == 3
    assert found.has_ours
    assert ",".join(found.tasks) == (given if isinstance(given, str) else "regreason").replace(
        " ", ""
    )
    assert read_scoring({}, data_folder, "c.yml") is None


@pytest.mark.parametrize(
    ("given", "limit", "expected"),
    [
        ("regreason_coqa_ontopic", None, "did you mean 'regreason_coqa_on_topic'?"),
        ("reg_reason_*", None, "unknown task 'reg_reason_*'; did you mean 'regreason_*'?"),
        ("regreason-coqa,regreason_coqa_*", None, "selects regreason_coqa_naturalness 2 times"),
        ("regreason-gen_*", None, "the label comes first; write 'regreason_*'"),
        ("regreason*", None, "selects regreason_"),
        (["regreason_*", 3], None, "must be the name of a task"),
        ("", None, "must be the name of a task"),
        (True, None, "must be the name of a task"),
        ([], None, "must be the name of a task"),
        ("regreason_*", 0, "regreason_eval_limit: must be a whole number above 0"),
        ("regreason_*", 0.5, "regreason_eval_limit: must be a whole number above 0"),
    ],
)
def test_mistakes_are_one_line_with_file_and_key(
    data_folder: DataFolder, given: Any, limit: Any, expected: str
) -> None:
    cfg = {"regreason_eval": given, "regreason_eval_limit": limit}
    with pytest.raises(UserError, match=r"c\.yml, field regreason_eval") as error:
        read_scoring(cfg, data_folder, "c.yml")
    assert expected in str(error.value)


def test_the_tasks_have_to_suit_the_data(
    one_setting: DataFolder, explanation_first_folder: DataFolder, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="it has test rows for regreason_coqa_on_topic$"):
        read_scoring({"regreason_eval": "regreason-on_topic"}, one_setting, "c.yml")
    with pytest.raises(UserError, match="the explanation comes first; write 'regreason-gen_"):
        read_scoring({"regreason_eval": "regreason_*"}, explanation_first_folder, "c.yml")
    assert read_scoring({"regreason_eval": "regreason-gen_*"}, explanation_first_folder, "c.yml")
    with pytest.raises(UserError, match="cannot run together with other tasks; leave out arc_easy"):
        given = {"regreason_eval": "regreason-gen_*,arc_easy"}
        read_scoring(given, explanation_first_folder, "c.yml")
    build_data(tmp_path / "DATA", rows=30)
    with (tmp_path / "DATA/test.jsonl").open("a") as stream:
        stream.write("\n")
    with pytest.raises(UserError, match=r"test\.jsonl: does not match the manifest"):
        changed = open_data_folder(tmp_path / "DATA")
        read_scoring({"regreason_eval": "regreason_coqa_on_topic"}, changed, "c.yml")


def test_the_model_is_scored_as_it_was_trained(one_setting: DataFolder, tmp_path: Path) -> None:
    def arguments(**changes: Any) -> tuple[dict[str, Any], list[str]]:
        scoring = Scoring(("a", "b"), 5, one_setting)
        given = command(config(tmp_path, **changes), scoring, {}).words()
        return simple_parse_args_string(given[given.index("--model_args") + 1]), given

    adapter = {"pretrained": "a/base", "peft": str(tmp_path)}
    plain, words = arguments()
    assert plain == {**adapter, "dtype": "float32"}
    assert words[words.index("--tasks") + 1] == "a,b"
    assert words[words.index("--limit") + 1] == "5"
    metadata = json.loads(words[words.index("--metadata") + 1])
    assert metadata == {"data_dir": str(one_setting.path)}
    assert "--apply_chat_template" not in words
    four, _ = arguments(load_in_4bit=True, torch_dtype=torch.bfloat16, revision_of_model="v2")
    assert four == {
        **adapter,
        "revision": "v2",
        "dtype": "bfloat16",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
    }
    full, _ = arguments(adapter=None, torch_dtype=torch.float16)
    assert full == {"pretrained": str(tmp_path), "dtype": "float16"}
    chat, words = arguments(datasets=[SimpleNamespace(type="chat_template")])
    assert chat == {**adapter, "tokenizer": str(tmp_path), "dtype": "float32"}
    assert "--apply_chat_template" in words


def program(code: str) -> LmEvalCommand:
    """A command that runs a Python program in place of lm-eval."""
    return LmEvalCommand(program=(sys.executable, "-c", code), model_args={}, tasks=["a"])


def run(code: str, one_setting: DataFolder, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Score with a Python program in place of lm-eval."""
    output.mkdir(exist_ok=True)
    monkeypatch.setattr(scoring, "command", lambda *_: program(code))
    scoring.score(config(output), Scoring(("regreason_*",), None, one_setting), {})


def test_the_child_is_a_process_of_its_own_and_is_heard(
    one_setting: DataFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Variables that torchrun and accelerate set for the processes of a training.
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("MY_OWN", "kept")
    code = (
        "import os, sys; print(sorted(os.environ)); print('caf\\u00e9 50%', end='\\r');"
        "print('done', file=sys.stderr)"
    )
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    run(code, one_setting, tmp_path, monkeypatch)
    shown, log = capsys.readouterr().out, (tmp_path / "eval.log").read_text(encoding="utf-8")
    for text in (shown, log):
        assert "'MY_OWN'" in text
        assert "café 50%" in text
        assert "done" in text
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC", "ACCELERATE"):
            assert name not in text


def trained(folder: DataFolder) -> RegReasonPlugin:
    """The plugin in its state after a training."""
    plugin: Any = RegReasonPlugin()
    plugin.sources = SimpleNamespace(arm="explanation", scope=None, folder=folder, rows=20)
    counts = {"label_tokens": 20, "target_tokens": 60, "cost": COST}
    plugin.progress = SimpleNamespace(steps=3, epochs=1.0, processes=1, **counts)
    plugin.scoring = Scoring(("regreason_*",), None, folder)
    return plugin  # type: ignore[no-any-return]


def test_a_failed_scoring_leaves_model_record_and_card_and_says_what_to_do(
    one_setting: DataFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugin = trained(one_setting)
    code = "print('out of memory'); raise SystemExit(3)"
    monkeypatch.setattr(scoring, "command", lambda *_: program(code))
    with pytest.raises(SystemExit) as end:
        plugin.post_train_unload(config(tmp_path))
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"regreason: the scoring failed with exit code 3, see {tmp_path}/eval.log"
    )
    assert line.endswith(f"to score it by hand: {program(code).line()}")
    assert json.loads((tmp_path / "regreason.json").read_text())["steps"] == 3
    assert "Not scored yet." in (tmp_path / "README.md").read_text()


def test_a_stopped_scoring_is_no_success(
    one_setting: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Axolotl's handler stays installed after the training and exits with 0.
    before = signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    started = time.monotonic()
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    try:
        with pytest.raises(SystemExit) as end:
            run(code, one_setting, tmp_path, monkeypatch)
        assert end.value.code == 130
        assert time.monotonic() - started < 30
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_data_that_changed_meanwhile_are_not_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = build_data(tmp_path / "DATA", rows=30)
    build_data(tmp_path / "new", rows=40)
    (tmp_path / "DATA").rename(tmp_path / "old")
    (tmp_path / "new").rename(tmp_path / "DATA")
    with pytest.raises(SystemExit):
        run("print('scored')", before, tmp_path / "out", monkeypatch)
    assert "DATA: was changed during the training" in capsys.readouterr().err


def test_what_is_said_of_an_old_model_goes_and_nothing_else(tmp_path: Path) -> None:
    gone = [
        *("regreason.json", "README.md", "eval.log"),
        *("eval/base/results_2026.json", "eval/base/samples_x_2026.jsonl", "eval/results_1.json"),
    ]
    kept = [
        "adapter_model.safetensors",
        "eval/notes.txt",
        "eval/other/picture.png",
        "results_1.json",
    ]
    for name in gone + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    clear(tmp_path)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(kept)
    assert not (tmp_path / "eval/base").exists()
    clear(tmp_path / "nowhere")


def test_no_process_of_a_training_but_the_first_scores(
    one_setting: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = trained(one_setting)
    monkeypatch.setenv("RANK", "1")
    plugin.post_train_unload(config(tmp_path))
    assert list(tmp_path.iterdir()) == []
