"""Reads lm_eval's result folders: one `Run` for each model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.core.base_weights import read_base_weights
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import ALLOW, RECORD, ModelUse, differences
from regreason_plugin.core.splits import Split
from regreason_plugin.evaluate.calibration_file import Calibration
from regreason_plugin.evaluate.logged_task import LoggedTask
from regreason_plugin.evaluate.task_results import TaskResult, task_results

# The date at the end of lm_eval's file names, such as 2026-01-31T10-20-30.123456.
_DATE = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?)$")


@dataclass(frozen=True)
class Run:
    """One model's results, a `TaskResult` for each task, from one or several lm_eval runs.

    Attributes:
        name: The model's name, from the command line.
        folder: The folder of the results.
        tasks: Results on test rows, by task name.
        config: lm_eval's record of its arguments, from the newest file.
        environment: Versions and the chat template's hash, from the newest file.
        training: The training record that our Axolotl plugin wrote next to the adapter: arm,
            seed, data and more. Empty for a model that was not trained with the plugin.
        trained_in: The folder of that record; None for a model that was not trained with the
            plugin.
        superseded: Older result files of the same tasks, which are not used.
        misfit: Clauses that say how this use of the model differs from its training, if the
            user who scored the model allowed that.
        inputs: Everything else that determines which tokens a model reads, from the newest file
            and as far as lm_eval records it: the tokenizer's tokens for the beginning and the end
            of a text, and the system instruction's hash.
        train: The same model's results on train rows, as a separate run; None without any.
        logged: Results on any tasks of lm_eval, by task name, if the run was read for them
            (`logged_results.read_logged_models`); then ``tasks`` is empty.
        number: The number of the run within its arm, for a model without a training seed; None if
            it is the only one.
        calibration: The model's temperature, if its calibrated probabilities are compared too.
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
    logged: dict[str, LoggedTask] = field(default_factory=dict)
    number: int | None = None
    calibration: Calibration | None = None

    @property
    def model(self) -> str:
        """The adapter that was scored, else the base model, as named in lm_eval's arguments."""
        return _model(self.config)

    @property
    def misfit_notes(self) -> list[str]:
        """A sentence for each clause of `misfit`, for a reader of the model's numbers."""
        return [
            f"{self.name}: {self.model} {clause}; it was scored anyway, with {ALLOW} set."
            for clause in self.misfit
        ]

    @property
    def seed(self) -> Any:
        """The training seed, else the number of the run within its arm; None if unknown."""
        return self.training.get("seed", self.number)


def read_run(name: str, folder: Path) -> Run:
    """Read the results of one model.

    Raises:
        UserError: As in `read_models`, or the folder holds results of several models.
    """
    runs = read_models(name, folder)
    if len(runs) > 1:
        raise UserError(
            f"holds results of {len(runs)} models ({first_names(run.model for run in runs)}); name "
            "the folder of one of them",
            path=folder,
        )
    return runs[0]


def read_models(name: str, folder: Path) -> list[Run]:
    """Read the results of all models that have results in a folder, sorted by model.

    If several files hold the same task of a model, the newest file counts and the others are
    listed in ``superseded``. Results on train rows never replace those on test rows: they are in
    ``train``. Results on validation rows are ignored.

    Raises:
        UserError: The folder holds no results of our tasks, a model has no results on test rows,
            or a file is broken.
    """
    by_model: dict[tuple[str, ...], dict[Split, list[_File]]] = {}
    for file, content in results_files(name, folder):
        for task, result in task_results(content, file).items():
            model = identity(content.get("config", {}), file)
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


def results_files(name: str, folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """lm_eval's results files in a folder with their contents, the oldest first.

    Args:
        name: The model's name, for messages.
        folder: As the user named it: a folder, a file, or lm_eval's ``--output_path``.

    Raises:
        UserError: There is no such folder, it holds no results, or a file is broken.
    """
    files = _files(folder)
    if not files and not folder.exists():
        raise UserError(f"no such results folder for {name!r}", path=folder)
    # lm_eval writes one folder per model and puts the date into the file's name.
    files.sort(key=lambda file: (date_of(file), file.name))
    # (Another program's file may have such a date in its name, too.)
    contents = [(file, _load(file)) for file in files if _is_results(file, folder)]
    if not contents:
        raise UserError(
            "holds no results_*.json; name the folder that you gave to lm_eval as --output_path",
            path=folder,
        )
    return contents


def has_results(path: Path) -> bool:
    """Whether a path exists, or was given to lm_eval as ``--output_path`` and has results."""
    return path.exists() or bool(_files(path))


def date_of(file: Path) -> str:
    """The date in the name of a results or samples file; the files of one run share it."""
    match = _DATE.search(file.stem)
    return match[1] if match else file.stem.removeprefix("results_")


def _files(path: Path) -> list[Path]:
    """The files at a path that may hold results.

    With ``--output_path out.json`` lm_eval writes ``out_<date>.json`` into the same folder.
    """
    if path.is_dir():
        every = set(path.rglob("*.json"))
        return sorted(f for f in every if f.match("results_*.json") or _DATE.search(f.stem))
    if path.is_file():
        return [path]
    if path.suffix != ".json" or not path.parent.is_dir():
        return []
    candidates = [file for file in path.parent.iterdir() if file.suffix == ".json"]
    return sorted(file for file in candidates if _DATE.sub("", file.stem) == path.stem)


def _is_results(file: Path, source: Path) -> bool:
    """Whether a file under the path ``source``, which the user named, is one of lm_eval's."""
    if not source.is_dir() or file.match("results_*.json"):
        return True
    try:
        content = _load_json(file)
    except UserError:
        return False
    return isinstance(content.get("results"), dict) and "n-samples" in content


class _File(NamedTuple):
    """A results file, with its tasks of one model and split."""

    path: Path
    content: dict[str, Any]
    tasks: dict[str, TaskResult]


def _of_model(name: str, folder: Path | None, by_split: dict[Split, list[_File]]) -> Run:
    """A model's results on test rows, with those on train rows in ``train``.

    Args:
        name: As in `Run`.
        folder: As in `Run`; None for the folder of the newest file.
        by_split: The model's files, the oldest first.

    Raises:
        UserError: The model has no results on test rows.
    """
    if "test" not in by_split:
        first, *_ = by_split.values()
        raise UserError(
            f"holds results of {_model(first[-1].content.get('config', {}))} on "
            f"{' and '.join(by_split)} rows only; score its test rows too: leave split out of "
            "--metadata",
            path=folder or first[-1].path,
        )
    run = _merge(name, folder or by_split["test"][-1].path.parent, by_split["test"])
    if "train" not in by_split:
        return run
    return replace(run, train=_merge(name, run.folder, by_split["train"]))


def _merge(name: str, folder: Path, files: list[_File]) -> Run:
    """Merge the files of one model and split, given the oldest first, into a `Run`."""
    tasks: dict[str, TaskResult] = {}
    superseded: list[Path] = []
    for one in files:
        superseded += sorted({tasks[task].source for task in one.tasks if task in tasks})
        tasks.update(one.tasks)
    file, content, _ = files[-1]
    run = replace(run_of(name, folder, file, content), tasks=tasks, superseded=superseded)
    misfits = [clause for result in tasks.values() for clause in _misfit(run, result)]
    return replace(run, misfit=tuple(dict.fromkeys(misfits)))


def run_of(name: str, folder: Path, file: Path, content: dict[str, Any]) -> Run:
    """A run without tasks, with everything else that a results file says of a model.

    Args:
        name: As in `Run`.
        folder: As in `Run`.
        file: The results file.
        content: The content of the results file.
    """
    config = content.get("config", {})
    trained_in = _record_folder(config, file)
    return Run(
        name=name,
        folder=folder,
        tasks={},
        config=config,
        environment={
            key: content.get(key)
            for key in ("lm_eval_version", "transformers_version", "chat_template_sha", "date")
        },
        training=_load_json(trained_in / RECORD) if trained_in else {},
        trained_in=trained_in,
        # The padding token is left out: training may set one, and no model attends to it.
        inputs={
            key: content[key]
            for key in ("tokenizer_bos_token", "tokenizer_eos_token", "system_instruction_sha")
            if key in content
        },
    )


def _misfit(run: Run, result: TaskResult) -> list[str]:
    """Clauses that say how the model's use differs from its training, if that was allowed.

    If lm-eval loaded the model by name, the task has recorded the differences. Otherwise they
    are derived from the results here.

    Raises:
        UserError: The use differs from the training, and nobody allowed that.
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
            f"{result.task}: {run.model} {'; it '.join(wrong)}. Score it again in the way that it "
            "was trained",
            path=result.source,
        )
    return []


def model_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """lm_eval's ``--model_args`` by name; some versions record them as text, some as an object."""
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        return dict(pair.split("=", 1) for pair in arguments.split(",") if "=" in pair)
    return dict(arguments)


def first_names(names: Iterable[str]) -> str:
    """The first four names of a list, for a message."""
    shown = list(names)
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")


def identity(config: dict[str, Any], file: Path) -> tuple[str, ...]:
    """A key that identifies a model, however it was scored."""
    arguments = model_arguments(config)
    version = [str(arguments.get(key, "")) for key in ("revision", "subfolder")]
    folder = _record_folder(config, file)
    return str(folder.resolve()) if folder else _model(config), *version


def _model(config: dict[str, Any]) -> str:
    """The adapter, else the base model, as named in lm_eval's arguments."""
    arguments = model_arguments(config)
    return str(arguments.get("peft") or arguments.get("pretrained") or config.get("model_args"))


def _record_folder(config: dict[str, Any], file: Path) -> Path | None:
    """The folder of the scored model, if it has a training record of our plugin; else None.

    A folder that has the model's name and contains the results is tried first: the model may
    have been moved together with its results, and a relative path may now lead elsewhere.
    """
    model = Path(_model(config))
    enclosing = [folder for folder in file.absolute().parents if folder.name == model.name]
    return next((f for f in [*enclosing, model] if (f / RECORD).is_file()), None)


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
        raise UserError("is no results file of lm_eval: it has no key 'results'", path=file)
    return content
