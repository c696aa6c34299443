"""Reading lm_eval's result folders."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regreason_plugin.errors import UserError
from regreason_plugin.settings import SETTINGS, generative_task_name, task_name

TASKS: dict[str, tuple[str, str]] = {
    make_name(*setting): setting
    for make_name in (task_name, generative_task_name)
    for setting in SETTINGS
}


@dataclass(frozen=True)
class TaskResult:
    """What lm_eval wrote of one task.

    Attributes:
        task: Its name.
        metrics: By key, None where undefined.
        stderrs: The standard errors, likewise.
        documents: How many were scored.
        fewshot: Examples in the prompt.
        version: The task's.
        data: Origin, sha256 and more of the data folder.
        source: The results file.
    """

    task: str
    metrics: dict[str, float | None]
    stderrs: dict[str, float | None]
    documents: int
    fewshot: int
    version: str
    data: dict[str, Any]
    source: Path


@dataclass(frozen=True)
class Run:
    """One model's results: a task each, from one or several lm_eval runs.

    Attributes:
        name: As given on the command line.
        folder: Where its results lie.
        tasks: By task name.
        config: lm_eval's own record of how it was called, of the newest file.
        environment: Versions and the chat template's hash, of the newest file.
        training: What `axolotl train` with our plugin left beside the adapter: arm, seed,
            data and more; empty for a model that it did not train.
        superseded: Older results of the same tasks, which were left out.
    """

    name: str
    folder: Path
    tasks: dict[str, TaskResult]
    config: dict[str, Any]
    environment: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    superseded: list[Path] = field(default_factory=list)


def read_run(name: str, folder: Path) -> Run:
    """Read the results of one model.

    Where several files hold the same task, the newest counts and the others are named
    in ``superseded``.

    Raises:
        UserError: The folder holds no results of our tasks, or a file is broken.
    """
    if not folder.exists():
        raise UserError(f"no such results folder for {name!r}", path=folder)
    files = [folder] if folder.is_file() else sorted(folder.rglob("results_*.json"))
    if not files:
        raise UserError(
            "holds no results_*.json; name the folder that lm_eval's --output_path named",
            path=folder,
        )
    # lm_eval puts the date into the file's name; the folder is the model's.
    files.sort(key=lambda file: file.name)
    tasks: dict[str, TaskResult] = {}
    config: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    superseded: list[Path] = []
    for file in files:
        content = _load(file)
        found = _tasks_of(content, file)
        superseded += sorted({tasks[task].source for task in found if task in tasks})
        tasks.update(found)
        if found:
            config = content.get("config", {})
            environment = {
                key: content.get(key)
                for key in ("lm_eval_version", "transformers_version", "chat_template_sha", "date")
            }
    if not tasks:
        raise UserError(
            "holds results of other tasks only; run lm_eval with --tasks 'regreason_*'",
            path=folder,
        )
    return Run(name, folder, tasks, config, environment, _training_of(config), superseded)


def _training_of(config: dict[str, Any]) -> dict[str, Any]:
    """The record beside the model that was scored, where there is one."""
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        arguments = dict(pair.split("=", 1) for pair in arguments.split(",") if "=" in pair)
    model = arguments.get("peft") or arguments.get("pretrained")
    record = Path(str(model)) / "regreason.json"
    return _load_json(record) if model and record.is_file() else {}


def _load_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"is not JSON: {error}", path=file) from None
    if not isinstance(content, dict):
        raise UserError("is not a JSON object", path=file)
    return content


def _load(file: Path) -> dict[str, Any]:
    content = _load_json(file)
    if not isinstance(content.get("results"), dict):
        raise UserError("is no results file of lm_eval: it has no 'results'", path=file)
    return content


def _tasks_of(content: dict[str, Any], file: Path) -> dict[str, TaskResult]:
    found: dict[str, TaskResult] = {}
    for task, values in content["results"].items():
        if task not in TASKS:
            continue
        metrics: dict[str, float | None] = {}
        stderrs: dict[str, float | None] = {}
        for key, value in values.items():
            metric, _, _filter = key.partition(",")
            # lm_eval looks for an error of our errors too, and finds none.
            if not _filter or metric.endswith("_stderr_stderr"):
                continue
            known = value if isinstance(value, int | float) else None
            if metric.endswith("_stderr"):
                stderrs[metric.removesuffix("_stderr")] = known
            else:
                metrics[metric] = known
        if "acc" not in metrics:
            raise UserError(
                f"task {task} has no 'acc' (was it run with --predict_only?)", path=file
            )
        data = content.get("configs", {}).get(task, {}).get("metadata", {}).get("data", {})
        if not data.get("sha256"):
            raise UserError(
                f"task {task} does not say which data it was scored on; score it again",
                path=file,
            )
        found[task] = TaskResult(
            task=task,
            metrics=metrics,
            stderrs=stderrs,
            documents=int(content.get("n-samples", {}).get(task, {}).get("effective", 0)),
            fewshot=int(content.get("n-shot", {}).get(task, 0)),
            version=str(content.get("versions", {}).get(task, "")),
            data=data,
            source=file,
        )
    return found
