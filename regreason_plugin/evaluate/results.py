"""Reading lm_eval's result folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.core.base_weights import read_base_weights
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import RECORD, ModelUse, differences
from regreason_plugin.data_folder.split import Split
from regreason_plugin.evaluate.task_results import TaskResult, task_results

# How lm_eval ends the names of its files: a date as in 2026-01-31T10-20-30.123456.
_DATE = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?)$")


@dataclass(frozen=True)
class Run:
    """One model's results: a task each, from one or several lm_eval runs.

    Attributes:
        name: As given on the command line.
        folder: Where its results lie.
        tasks: Results on test rows, by task name.
        config: lm_eval's own record of how it was called, of the newest file.
        environment: Versions and the chat template's hash, of the newest file.
        training: What `axolotl train` with our plugin left beside the adapter: arm, seed,
            data and more; empty for a model that it did not train.
        trained_in: The folder of that record; None of a model that it did not train.
        superseded: Older results of the same tasks, which were left out.
        misfit: What the model was used for otherwise than it was trained, where whoever scored
            it allowed that.
        inputs: What else decides which tokens a model reads, of the newest file and as far
            as lm_eval says: the tokenizer's tokens for the beginning and the end of a text,
            and the system instruction's hash.
        train: The same model's results on train rows, as a run of their own; None without any.
    """

    name: str
    folder: Path
    tasks: dict[str, TaskResult]
    config: dict[str, Any]
    environment: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    trained_in: Path | None = None
    superseded: list[Path] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    misfit: tuple[str, ...] = ()
    train: Run | None = None

    @property
    def model(self) -> str:
        """The adapter that was scored, or the model without one, as lm_eval was told."""
        return _model(self.config)

    @property
    def misfit_notes(self) -> list[str]:
        """What a reader of its numbers has to know of `misfit`, a sentence each."""
        return [
            f"{self.name}: {self.model} {clause}; it was scored all the same, as was asked for."
            for clause in self.misfit
        ]

    @property
    def seed(self) -> Any:
        """Of its training; None where unknown."""
        return self.training.get("seed")


def read_run(name: str, folder: Path) -> Run:
    """Read the results of one model.

    Raises:
        UserError: As `read_models`, or the folder holds results of several models.
    """
    runs = read_models(name, folder)
    if len(runs) > 1:
        raise UserError(
            f"holds results of {len(runs)} models ({some_of(run.model for run in runs)}); name "
            "the folder of one of them",
            path=folder,
        )
    return runs[0]


def read_models(name: str, folder: Path) -> list[Run]:
    """Read the results of all models that a folder has results of, in the order of their names.

    Where several files hold the same task of a model, the newest counts and the others are
    named in ``superseded``. Results on train rows never stand for those on test rows: they are
    in ``train``, and those on validation rows are passed over.

    Raises:
        UserError: The folder holds no results of our tasks, or of a model none on test rows; or a
            file is broken.
    """
    files = _files(folder)
    if not files and not folder.exists():
        raise UserError(f"no such results folder for {name!r}", path=folder)
    # lm_eval puts the date into the file's name; the folder is the model's.
    files.sort(key=lambda file: (date_of(file), file.name))
    by_model: dict[tuple[str, ...], dict[Split, list[_File]]] = {}
    # (A file of another program may have such a date in its name.)
    contents = [(file, _load(file)) for file in files if _is_results(file, folder)]
    if not contents:
        raise UserError(
            "holds no results_*.json; name the folder that lm_eval's --output_path named",
            path=folder,
        )
    for file, content in contents:
        for task, result in task_results(content, file).items():
            model = _identity(content.get("config", {}), file)
            of_split = by_model.setdefault(model, {}).setdefault(result.setting.split, [])
            if not of_split or of_split[-1].path != file:
                of_split.append(_File(file, content, {}))
            of_split[-1].tasks[task] = result
    if not by_model:
        raise UserError(
            "holds results of other tasks only; run lm_eval with --tasks 'regreason_*' or with "
            "your own task",
            path=folder,
        )
    return [
        _of_model(name, folder if len(by_model) == 1 else None, by_model[model])
        for model in sorted(by_model)
    ]


def names_results(path: Path) -> bool:
    """Whether a path is a folder or file that is there, or what ``--output_path`` was given."""
    return path.exists() or bool(_files(path))


def date_of(file: Path) -> str:
    """The date in the name of a file of lm_eval's, which results and their samples share."""
    match = _DATE.search(file.stem)
    return match[1] if match else file.stem.removeprefix("results_")


def _files(path: Path) -> list[Path]:
    """The files that may be results.

    With ``--output_path out.json`` lm_eval writes ``out_<date>.json`` beside it.
    """
    if path.is_dir():
        every = set(path.rglob("*.json"))
        return sorted(f for f in every if f.match("results_*.json") or _DATE.search(f.stem))
    if path.is_file():
        return [path]
    if path.suffix != ".json" or not path.parent.is_dir():
        return []
    beside = [file for file in path.parent.iterdir() if file.suffix == ".json"]
    return sorted(file for file in beside if _DATE.sub("", file.stem) == path.stem)


def _is_results(file: Path, named: Path) -> bool:
    if not named.is_dir() or file.match("results_*.json"):
        return True
    try:
        content = _load_json(file)
    except UserError:
        return False
    return isinstance(content.get("results"), dict) and "n-samples" in content


class _File(NamedTuple):
    """A results file, with those of its tasks that are of one model and split."""

    path: Path
    content: dict[str, Any]
    tasks: dict[str, TaskResult]


def _of_model(name: str, folder: Path | None, by_split: dict[Split, list[_File]]) -> Run:
    """A model's results on test rows, and beside them those on train rows.

    Args:
        name: As `Run`.
        folder: As `Run`; None for that of its newest file.
        by_split: Its files, the oldest first.

    Raises:
        UserError: None is of test rows.
    """
    if "test" not in by_split:
        first, *_ = by_split.values()
        raise UserError(
            f"holds results of {_model(first[-1].content.get('config', {}))} on "
            f"{' and '.join(by_split)} rows only; score its test rows too, without split in "
            "--metadata",
            path=folder or first[-1].path,
        )
    run = _merge(name, folder or by_split["test"][-1].path.parent, by_split["test"])
    if "train" not in by_split:
        return run
    return replace(run, train=_merge(name, run.folder, by_split["train"]))


def _merge(name: str, folder: Path, files: list[_File]) -> Run:
    """What the files of one model and split say, the oldest first."""
    tasks: dict[str, TaskResult] = {}
    superseded: list[Path] = []
    for one in files:
        superseded += sorted({tasks[task].source for task in one.tasks if task in tasks})
        tasks.update(one.tasks)
    file, content, _ = files[-1]
    config = content.get("config", {})
    trained_in = _record_folder(config, file)
    run = Run(
        name=name,
        folder=folder,
        tasks=tasks,
        config=config,
        environment={
            key: content.get(key)
            for key in ("lm_eval_version", "transformers_version", "chat_template_sha", "date")
        },
        training=_load_json(trained_in / RECORD) if trained_in else {},
        trained_in=trained_in,
        superseded=superseded,
        # Not the padding token: training may set one, and padding is never read.
        inputs={
            key: content[key]
            for key in ("tokenizer_bos_token", "tokenizer_eos_token", "system_instruction_sha")
            if key in content
        },
    )
    misfits = [clause for result in tasks.values() for clause in _misfit(run, result)]
    return replace(run, misfit=tuple(dict.fromkeys(misfits)))


def _misfit(run: Run, result: TaskResult) -> list[str]:
    """What was otherwise than in the model's training, where that was allowed.

    A task says it of a model that lm-eval was told by name; of others the results do.

    Raises:
        UserError: Something was, and nobody allowed it.
    """
    if "misfit" in result.data or not run.training:
        return list(result.data.get("misfit", []))
    setting, arguments = result.setting, model_arguments(run.config)
    prompt, template = result.data.get("prompt_sha256"), run.environment["chat_template_sha"]
    use = ModelUse(
        order="explanation_first" if setting.generative else "label_first",
        labels=tuple(label + setting.label_end for label in setting.labels),
        prompts={setting.axis: prompt} if prompt else None,
        chat_template=bool(template),
        template_sha256=template,
        examples=result.fewshot,
        system_instruction=bool(run.inputs.get("system_instruction_sha")),
        head=arguments.get("head"),
        weights=read_base_weights(str(arguments.get("pretrained", ""))),
    )
    wrong = differences(run.training, use, arguments).wrong
    if wrong:
        raise UserError(
            f"{result.task}: {run.model} {'; it '.join(wrong)}. Score it again as it was trained",
            path=result.source,
        )
    return []


def model_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """lm_eval's ``--model_args``, which its versions write as text or as an object."""
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        return dict(pair.split("=", 1) for pair in arguments.split(",") if "=" in pair)
    return dict(arguments)


def some_of(names: Iterable[str]) -> str:
    """The first names of a list that may be long."""
    shown = list(names)
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")


def _identity(config: dict[str, Any], file: Path) -> tuple[str, ...]:
    """What tells one model from another, however they were scored."""
    arguments = model_arguments(config)
    which = [str(arguments.get(key, "")) for key in ("revision", "subfolder")]
    place = _record_folder(config, file)
    return str(place.resolve()) if place else _model(config), *which


def _model(config: dict[str, Any]) -> str:
    """The adapter, or the model without one, as lm_eval was told."""
    arguments = model_arguments(config)
    return str(arguments.get("peft") or arguments.get("pretrained") or config.get("model_args"))


def _record_folder(config: dict[str, Any], file: Path) -> Path | None:
    """The folder of the model that was scored, where our plugin trained it.

    Results that lie in it are its own wherever it was moved to; and a relative path may
    stand for another folder now.
    """
    model = Path(_model(config))
    around = [folder for folder in file.absolute().parents if folder.name == model.name]
    return next((f for f in [*around, model] if (f / RECORD).is_file()), None)


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
