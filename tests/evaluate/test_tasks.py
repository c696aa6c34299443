"""The 18 tasks, run by the installed version of lm-eval."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.scoring import TASKS, PlainScorer, evaluate, lm_eval_command, task_manager
from helpers.training_data import HOSTILE, build_data
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from regreason_plugin.core.errors import say_once
from regreason_plugin.core.paper import (
    AXES,
    DATASETS,
    SETTINGS,
    generative_task_name,
    task_name,
)
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate import documents

pytestmark = pytest.mark.integration

NAMES = sorted(task_name(*setting) for setting in SETTINGS)
TASK = "regreason_coqa_on_topic"


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> Any:
    return HFLM(pretrained=str(tiny_model), device="cpu", batch_size=16)


@pytest.fixture(autouse=True)
def _forget_folders() -> Iterator[None]:
    """Clear the caches: unlike users, tests change folders and environment in one process."""
    yield
    say_once.cache_clear()
    documents.documents_by_setting.cache_clear()


# --- Names and files ----------------------------------------------------------------


def test_glob_matches_the_18_and_nothing_else() -> None:
    known = task_manager()
    assert known.match_tasks(["regreason_*"]) == NAMES
    assert len(known.all_subtasks) == 2 * len(SETTINGS)
    assert known.match_tasks(["regreason-gen_*"]) == sorted(
        generative_task_name(*setting) for setting in SETTINGS
    )
    assert set(known.all_groups) == {
        "regreason",
        *(f"regreason-{name}" for name in (*DATASETS, *AXES)),
    }
    assert not known.all_tags


def test_task_files_are_what_the_settings_declare() -> None:
    declared: dict[str, Any] = {}
    for dataset, axis in SETTINGS:
        for prefix, name, common in (
            ("", task_name, "label_first"),
            ("gen_", generative_task_name, "explanation_first"),
        ):
            declared[f"{dataset}/{prefix}{axis}.yaml"] = {
                "include": f"../_{common}.yml",
                "task": name(dataset, axis),
                "dataset_kwargs": {"setting": [dataset, axis]},
            }
    groups = {"regreason": [task_name(*setting) for setting in SETTINGS]}
    groups |= {f"regreason-{d}": [task_name(d, axis) for axis in AXES] for d in DATASETS}
    groups |= {f"regreason-{a}": [task_name(dataset, a) for dataset in DATASETS] for a in AXES}
    for group, tasks in groups.items():
        declared[f"groups/{group}.yaml"] = {
            "include": "../_group.yml",
            "group": group,
            "task": tasks,
        }
    found = {
        file.relative_to(TASKS).as_posix(): yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in TASKS.rglob("*.yaml")
    }
    assert found == declared


def test_found_two_ways_is_still_one_task(tmp_path: Path) -> None:
    installed = tmp_path / "lm_eval" / "tasks" / "regreason"
    shutil.copytree(TASKS, installed)
    both = TaskManager(include_path=[str(installed), str(TASKS)], include_defaults=False)
    assert both.all_tasks == task_manager().all_tasks
    assert both.match_tasks(["regreason_*"]) == NAMES


@pytest.mark.slow
def test_listed_once(tmp_path: Path) -> None:
    listed = lm_eval_command("ls", "tasks", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    cells = [line.split("|")[1].strip() for line in listed.stdout.splitlines() if "|" in line]
    for name in (*NAMES, "regreason", generative_task_name("coqa", "on_topic")):
        assert cells.count(name) == 1


# --- Figures ------------------------------------------------------------------------


def accuracy_and_nll(scores: list[list[float]], labels: list[int]) -> tuple[float, float]:
    logits = np.array(scores)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    right = np.array(labels) - 1
    return (
        float((logits.argmax(axis=1) == right).mean()),
        float(-log_probabilities[np.arange(len(right)), right].mean()),
    )


def test_all_18_equal_plain_transformers(
    lm: Any, tiny_model: Path, data_folder: DataFolder
) -> None:
    limit = 6
    results = evaluate(lm, ["regreason"], data_folder.path, limit=limit)
    assert set(results["results"]) == {*NAMES, "regreason"}
    scorer = PlainScorer(tiny_model)
    rows = list(data_folder.rows("test.jsonl"))
    for dataset, axis in SETTINGS[::5]:
        asked = [row for row in rows if (row.dataset, row.axis) == (dataset, axis)][:limit]
        accuracy, nll = accuracy_and_nll(
            [scorer.labels(row.messages[0].content) for row in asked],
            [row.label for row in asked],
        )
        found = results["results"][task_name(dataset, axis)]
        assert found["acc,none"] == pytest.approx(accuracy)
        assert found["nll,none"] == pytest.approx(nll, abs=1e-4)

    sizes = [results["n-samples"][name] for name in NAMES]
    assert sum(size["original"] for size in sizes) == len(rows)
    group = results["results"]["regreason"]
    for metric in ("acc", "macro_f1", "ece"):
        values = [results["results"][name][f"{metric},none"] for name in NAMES]
        assert group[f"{metric},none"] == pytest.approx(np.mean(values))
        assert group[f"{metric}_stderr,none"] > 0


def test_every_metric_has_value_and_error(lm: Any, data_folder: DataFolder) -> None:
    found = evaluate(lm, [TASK], data_folder.path)["results"][TASK]
    names = "acc macro_f1 qwk mae spearman within_1 nll brier ece overconfidence"
    for name in [*names.split(), "majority_acc", "label_entropy"]:
        assert isinstance(found[f"{name},none"], float), name
        assert isinstance(found[f"{name}_stderr,none"], float), name
    assert found["undefined,none"] == 0


def test_chat_template_and_adapter(
    tiny_model: Path, data_folder: DataFolder, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    )
    adapted.save_pretrained(tmp_path)
    lm = HFLM(pretrained=str(tiny_model), peft=str(tmp_path), device="cpu", batch_size=4)
    results = evaluate(
        lm, [TASK], data_folder.path, limit=6, apply_chat_template=True, fewshot_as_multiturn=True
    )
    scorer = PlainScorer(tiny_model, adapter=tmp_path)
    for sample in results["samples"][TASK]:
        context = scorer.chat([{"role": "user", "content": sample["doc"]["prompt"]}])
        # After a chat template, no delimiter precedes the label.
        assert sample["arguments"] == [(context, f"{label}") for label in range(1, 6)]
        expected = [scorer.score(context, f"{label}") for label in range(1, 6)]
        found = [score for score, _ in sample["filtered_resps"]]
        # lm-eval counts the template's last line break as part of the label. That shifts all
        # five scores alike, so only their differences are compared.
        assert np.diff(found) == pytest.approx(np.diff(expected), abs=1e-3)


def test_samples_hold_what_an_analysis_needs(lm: Any, data_folder: DataFolder) -> None:
    sample = evaluate(lm, [TASK], data_folder.path, limit=2)["samples"][TASK][0]
    assert set(sample["doc"]) == {
        *("id", "group", "dataset", "axis", "label", "score", "prompt", "explanation"),
        *("labels", "ordinal", "normalise"),
    }
    assert sample["doc"]["labels"] == ["1", "2", "3", "4", "5"]
    assert json.loads(json.dumps(sample["doc"])) == sample["doc"]
    assert sample["acc"] in (0.0, 1.0)


def test_undefined_is_null_in_the_file_that_lm_eval_writes(
    tiny_model: Path, data_folder: DataFolder, tmp_path: Path
) -> None:
    # With one document there is only one class, and no standard error.
    run = lm_eval_command(
        *("--model", "hf", "--model_args", f"pretrained={tiny_model}", "--device", "cpu"),
        *("--tasks", "regreason-coqa", "--limit", "1", "--output_path", "out", "--log_samples"),
        *("--metadata", json.dumps({"data_dir": str(data_folder.path)})),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    (file,) = tmp_path.glob("out/*/results_*.json")
    text = file.read_text(encoding="utf-8")
    results = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in results"))
    found = results["results"][TASK]
    assert found["qwk,none"] is None
    assert found["spearman,none"] is None
    assert found["undefined,none"] == 2
    assert found["acc_stderr,none"] == "N/A"
    assert math.isfinite(results["results"]["regreason-coqa"]["acc,none"])
    # With a group and --metadata, too, each task's results name the data.
    for dataset, axis in SETTINGS:
        if dataset == "coqa":
            data = results["configs"][task_name(dataset, axis)]["metadata"]["data"]
            assert data["origin"] == data_folder.origin
            assert data["sha256"] == data_folder.sha256
            assert data["order"] == "label_first"


# --- Few-shot and reading -----------------------------------------------------------


def test_few_shot_examples_come_from_train(lm: Any, data_folder: DataFolder) -> None:
    results = evaluate(lm, [TASK], data_folder.path, limit=4, num_fewshot=2)
    train = {
        row.messages[0].content: row.label
        for row in data_folder.rows("train/label_only.jsonl")
        if task_name(row.dataset, row.axis) == TASK
    }
    test = {row.messages[0].content for row in data_folder.rows("test.jsonl")}
    seen = set()
    for sample in results["samples"][TASK]:
        context = sample["arguments"][0][0]
        shown = [text for text in train if f"{text} {train[text]}\n\n" in context]
        assert len(shown) == 2
        assert sum(text in context for text in test) == 1
        # The prompt contains nothing else.
        assert len(context) == sum(len(f"{t} {train[t]}\n\n") for t in shown) + len(
            sample["doc"]["prompt"]
        )
        seen |= set(shown)
    assert len(seen) > 2


def test_files_are_read_once_and_train_only_when_needed(
    lm: Any, data_folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    rows = DataFolder.rows
    monkeypatch.setattr(
        DataFolder, "rows", lambda folder, name: read.append(name) or rows(folder, name)
    )
    evaluate(lm, NAMES, data_folder.path, limit=1)
    assert read == ["test.jsonl"]
    evaluate(lm, NAMES, data_folder.path, limit=1, num_fewshot=1)
    assert read == ["test.jsonl", "train/label_only.jsonl"]


def test_a_folder_built_anew_is_read_anew(tmp_path: Path) -> None:
    prompts = []
    for text in ("first", "second"):
        build_data(tmp_path / "DATA", texts=[text])
        prompts.append(load(task_manager(tmp_path / "DATA"), TASK).eval_docs[0]["prompt"])
        shutil.rmtree(tmp_path / "DATA")
    assert "first" in prompts[0]
    assert "second" in prompts[1]


def test_too_many_few_shot_examples(
    lm: Any, data_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        evaluate(lm, [TASK], data_folder.path, limit=1, num_fewshot=100_000)
    assert end.value.code == 2
    assert "--num_fewshot 100000 asks for more examples" in only_line(capsys)


# --- Hostile text -------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"apply_chat_template": True}, {"num_fewshot": 2}])
def test_text_gives_no_special_token(
    tiny_model: Path, tmp_path: Path, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_data(tmp_path / "DATA", rows=160, texts=HOSTILE)
    lm = HFLM(pretrained=str(tiny_model), device="cpu", batch_size=16)
    requests: list[Any] = []
    score = lm._loglikelihood_tokens
    monkeypatch.setattr(
        lm, "_loglikelihood_tokens", lambda reqs, **kw: requests.extend(reqs) or score(reqs, **kw)
    )
    evaluate(lm, [TASK], folder.path, **arguments)
    special = set(lm.tokenizer.all_special_ids)
    start, end = lm.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    turns = 1 if arguments.get("apply_chat_template") else 0
    assert requests
    for _, context, continuation in requests:
        assert not special & set(continuation)
        # Only the beginning-of-text token and the chat template's own tokens are special.
        assert context[0] == lm.tokenizer.bos_token_id
        assert context.count(start) == 2 * turns
        assert context.count(end) == turns
        assert len(special & set(context)) == 1 + 2 * turns
    texts = [context for (context, _), *_ in requests]
    assert any("{{ 7*7 }} {% raw %}" in text for text in texts)
    assert any("\u202e" in text for text in texts)
    assert not any("\x00" in text for text in texts)


# --- Prompts that do not fit --------------------------------------------------------


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "regreason: " in line]
    (line,) = (line for line in lines if not line.endswith("are generated"))
    return line


@pytest.mark.parametrize("verbosity", ["INFO", "ERROR"])
def test_a_prompt_longer_than_the_window_ends_the_run(
    tiny_model: Path,
    data_folder: DataFolder,
    capsys: pytest.CaptureFixture[str],
    verbosity: str,
) -> None:
    import logging

    longest = max(
        len(row.messages[0].content)
        for row in data_folder.rows("test.jsonl")
        if task_name(row.dataset, row.axis) == TASK
    )
    lm = HFLM(pretrained=str(tiny_model), device="cpu", max_length=longest + 2, batch_size=4)
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(verbosity)
    try:
        evaluate(lm, [TASK], data_folder.path)
        with pytest.raises(SystemExit) as end:
            evaluate(lm, [TASK], data_folder.path, num_fewshot=3)
    finally:
        logger.setLevel(level)
    assert end.value.code == 2
    assert f"do not fit the model's window of {longest + 2}" in only_line(capsys)


def test_a_prompt_that_just_fits_is_scored(
    tiny_model: Path, data_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = PlainScorer(tiny_model).tokenizer
    longest = max(
        len(tokenizer(f"{row.messages[0].content} {label}").input_ids)
        for row in data_folder.rows("test.jsonl")
        if task_name(row.dataset, row.axis) == TASK
        for label in range(1, 6)
    )
    # The model predicts the last token and never reads it.
    fits = HFLM(pretrained=str(tiny_model), device="cpu", max_length=longest - 1, batch_size=4)
    evaluate(fits, [TASK], data_folder.path)
    short = HFLM(pretrained=str(tiny_model), device="cpu", max_length=longest - 2, batch_size=4)
    with pytest.raises(SystemExit):
        evaluate(short, [TASK], data_folder.path)
    assert "smaller --max-prompt-tokens" in only_line(capsys)


# --- A user's mistakes --------------------------------------------------------------


def lacking(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder without test rows of CoQA."""
    from regreason_plugin.core.jsonl import file_sha256
    from regreason_plugin.data_folder.folder import MANIFEST

    copy = tmp_path / "LACKS"
    shutil.copytree(folder, copy)
    lines = (copy / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["dataset"] != "coqa"]
    (copy / "test.jsonl").write_text("".join(kept), encoding="utf-8")
    manifest = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    for axis in AXES:
        del manifest["counts"]["test"]["labels"][task_name("coqa", axis)]
    manifest["files"]["test.jsonl"] = file_sha256(copy / "test.jsonl")
    (copy / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return copy


MISTAKES: dict[str, tuple[Callable[[Path, Path], dict[str, Any]], str]] = {
    "missing": (lambda data, tmp: {"data_dir": str(tmp / "nowhere")}, "no such data folder"),
    "no folder": (lambda data, tmp: {"data_dir": str(tmp)}, "has no manifest.json"),
    "empty": (
        lambda data, tmp: {"data_dir": ""},
        "data_dir is ''; write the name of a data folder",
    ),
    "datadir": (lambda data, tmp: {"datadir": str(data)}, "no key 'datadir'"),
    "data-dir": (lambda data, tmp: {"data-dir": str(data)}, "no key 'data-dir'"),
    "DATA_DIR": (lambda data, tmp: {"DATA_DIR": str(data)}, "no key 'DATA_DIR'"),
    "data_dr": (lambda data, tmp: {"data_dr": str(data)}, "no key 'data_dr'"),
    "dataset": (lambda data, tmp: {"dataset": str(data)}, "no key 'dataset'"),
    "data": (lambda data, tmp: {"data": str(data)}, "no key 'data'"),
    "lacking": (
        lambda data, tmp: {"data_dir": str(lacking(data, tmp))},
        "has no test rows for coqa on_topic; it has test rows for --tasks "
        + ",".join(task_name(*setting) for setting in SETTINGS if setting[0] != "coqa"),
    ),
    "split": (
        lambda data, tmp: {"data_dir": str(data), "split": "dev"},
        "split in --metadata is 'dev'; write one of train, validation, test",
    ),
    "no split": (
        lambda data, tmp: {"data_dir": str(data), "split": ""},
        "split in --metadata is ''; write one of",
    ),
    "truncation": (
        lambda data, tmp: {"data_dir": str(data), "truncation": True},
        "truncation=True",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_stop_with_one_line(
    mistake: str, data_folder: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata, message = MISTAKES[mistake]
    known = task_manager(**metadata(data_folder.path, tmp_path))
    with pytest.raises(SystemExit) as end:
        load(known, TASK)
    assert end.value.code == 2
    line = only_line(capsys)
    assert line.startswith("regreason: ")
    assert message in line


def load(known: Any, name: str) -> Any:
    """Load a task object, with either version of lm-eval."""
    return known.load_task_or_group([name])[name]


def test_data_folder_from_the_environment(
    data_folder: DataFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGREASON_DATA", str(data_folder.path))
    task = load(task_manager(), TASK)
    assert task.config.metadata["data"]["sha256"] == data_folder.sha256
    for wrong, message in (
        ("", "is ''; write the name of a data folder"),
        ("nowhere", "no such data"),
    ):
        monkeypatch.setenv("REGREASON_DATA", wrong)
        with pytest.raises(SystemExit):
            load(task_manager(), TASK)
        assert message in only_line(capsys)


def test_no_folder_named_is_the_mini_benchmark(
    data_folder: DataFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REGREASON_DATA", raising=False)
    monkeypatch.setattr(documents, "mini_data_folder", lambda: data_folder)
    task = load(task_manager(), TASK)
    assert task.config.metadata["data"]["sha256"] == data_folder.sha256
    assert "built-in mini benchmark of generated conversations" in only_line(capsys)


def test_model_arguments_are_no_mistyped_keys(data_folder: DataFolder) -> None:
    import inspect

    arguments = {
        name: None
        for name in inspect.signature(HFLM.__init__).parameters
        if name not in ("self", "kwargs")
    }
    others = "data_parallel_size tensor_parallel_size gpu_memory_utilization base_url download_dir"
    arguments |= dict.fromkeys(f"{others} load_in_4bit attn_implementation seed".split())
    task = load(task_manager(data_folder.path, **arguments), TASK)
    assert len(task.eval_docs) > 0


@pytest.mark.slow
def test_a_missing_folder_ends_the_command_and_writes_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    run = lm_eval_command(
        *("--model", "hf", "--model_args", f"pretrained={tiny_model}", "--device", "cpu"),
        *("--tasks", "regreason_*", "--output_path", "out"),
        *("--metadata", json.dumps({"data_dir": "DATA"})),
        cwd=tmp_path,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("regreason: ")
    assert "no such data folder" in run.stderr
    assert not list(tmp_path.iterdir())
