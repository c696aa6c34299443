"""Writes the folder of a new task: every file that `regreason task new` makes.

The files are rendered from the templates in ``task/files``. Labels, columns, paths and titles come
from the data. They are always written as YAML scalars, so that no text can become YAML syntax.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from regreason_plugin.core import markdown
from regreason_plugin.core.declaration import TEXT, check_no_prefixes
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.printable import one_line
from regreason_plugin.core.task_file import Task, check_prompt
from regreason_plugin.core.whole_files import atomic_writer, whole_folder
from regreason_plugin.core.yaml_file import dump_yaml, with_values
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand
from regreason_plugin.task.shipped_configs import FOLDER, shipped

_PLAIN = re.compile(r"[\w./~+-]+")
# The default prompt lists the labels if there are at most this many.
_LISTED = 40
# Each entry: the metric, its aggregation function, whether higher is better. The function's name
# plus _stderr is the one of the standard error.
_ANY = (
    ("acc", "mean", "true"),
    ("macro_f1", "macro_f1", "true"),
    ("nll", "mean", "false"),
    ("brier", "mean", "false"),
    ("ece", "ece", "false"),
    ("overconfidence", "mean", "null"),
    ("majority_acc", "majority_acc", "null"),
    ("label_entropy", "mean", "null"),
)
_ORDINAL = (
    ("qwk", "qwk", "true"),
    ("mae", "mean", "false"),
    ("spearman", "spearman", "true"),
    ("within_1", "mean", "true"),
)
_TWO = (("auroc", "auroc", "true"),)

TWIN = "explanation_first"
_SECTION = "\n# --- The plugin "


@dataclass(frozen=True)
class NewTask:
    """The values from which the files are rendered.

    Attributes:
        task: The task; the path of its table is relative to the working directory.
        dest: The folder to write.
        base: The base model to train, a folder or a Hub name.
        rows: The number of rows in the table.
        explained: The number of rows with an explanation.
        own_validation: Whether the validation rows are the user's own.
    """

    task: Task
    dest: Path
    base: str
    rows: int
    explained: int
    own_validation: bool = False

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that ``arms.yml`` trains."""
        return ("label_only", "explanation", "shuffled") if self.explained else ("label_only",)

    @property
    def main_arm(self) -> str:
        """The arm that commands name if they take a single one."""
        return "explanation" if self.explained else "label_only"


def default_end(labels: Sequence[str]) -> str:
    """The end marker for every label: empty unless one label is a prefix of another.

    Raises:
        UserError: No end marker tells the labels apart.
    """
    for end in ("", ".", ";", "|", "#"):
        try:
            check_no_prefixes([label + end for label in labels])
        except ValueError:
            continue
        return end
    raise UserError(
        "one label is a prefix of another, and with every end marker (. ; | #) one still is; "
        "rename a label"
    )


def default_prompt(column: str, labels: Sequence[str], ordinal: bool) -> str:
    """A prompt that asks for the label and lists the possible labels.

    Args:
        column: The name of the label column.
        labels: The labels, in order.
        ordinal: Whether they form a scale.
    """
    between = " | " if any(";" in label for label in labels) else "; "
    listed = between.join(labels) if len(labels) <= _LISTED else ""
    if ordinal and all(re.fullmatch(r"-?\d+", label) for label in labels):
        choice = f", on a scale from {labels[0]} (lowest) to {labels[-1]} (highest)"
    elif ordinal:
        choice = f", on a scale from low to high: {listed}" if listed else ""
    else:
        choice = f", one of: {listed}" if listed else ""
    name = one_line(column) or "label"
    for asked in (f"{name}{choice}", f"label{choice}", name, "label"):
        try:
            return check_prompt(f"{TEXT}\n\nGive the text's {asked}.\nAnswer:")
        except ValueError:  # a label or the column's name contains a brace
            continue
    raise AssertionError("the last of these prompts holds no data")


def check_dest(dest: Path) -> None:
    """Refuse a folder that already exists, or whose name could not be pasted into commands.

    Raises:
        UserError: The folder exists and is not empty, or its name has other characters than
            letters, digits and ``._-+/``.
    """
    if not _PLAIN.fullmatch(str(dest)) or str(dest).startswith("-"):
        raise UserError(
            f"--out {str(dest)!r} becomes part of commands, so it may contain only letters, "
            "digits and ._-+/"
        )
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UserError("already exists; name another --out, or remove it", path=dest)


def check_is_free(name: str) -> None:
    """Refuse a name that lm-eval already uses.

    Raises:
        UserError: It is the name of a task or group of lm-eval.
    """
    if name in _lm_eval_names():
        raise UserError(f"{name!r} is already a task or group of lm-eval; choose another name")


@cache
def _lm_eval_names() -> frozenset[str]:
    from lm_eval.tasks import TaskManager

    return frozenset(TaskManager().all_tasks)


def write_task(new: NewTask) -> list[Path]:
    """Write the folder. An error leaves no folder behind.

    Returns:
        The files of the folder.

    Raises:
        UserError: The folder already exists, or it cannot be written.
    """
    check_dest(new.dest)
    contents = _contents(new)
    with whole_folder(new.dest) as written:
        for name, text in contents.items():
            with atomic_writer(written / name) as stream:
                stream.write(text.encode("utf-8"))
    return [new.dest / name for name in contents]


def scalar(text: str) -> str:
    """Format a text as a YAML scalar on one line."""
    style = '"' if len(text.splitlines()) > 1 else None
    dumped = yaml.safe_dump(text, allow_unicode=True, width=10**9, default_style=style)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _block(text: str) -> str:
    """Format a text as a YAML block if it has several lines, else as a scalar."""
    return dump_yaml({"key": text}).removeprefix("key: ").removesuffix("\n")


def _contents(new: NewTask) -> dict[str, str]:
    name = new.task.name
    environment = Environment(
        loader=PackageLoader("regreason_plugin.task", "files"),
        autoescape=False,  # noqa: S701 - YAML and Markdown, where each value has its own filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "scalar": scalar,
        "optional": lambda text: f" {scalar(text)}" if text else "",
        "block": _block,
        "markdown": markdown.escape,
        "code": markdown.code,
        "shell": lambda commands: markdown.block(commands, "sh"),
        "quoted": shlex.quote,
    }
    words = _words(new)

    def filled(template: str) -> str:
        return environment.get_template(template).render(words)

    functions = (files("regreason_plugin.task") / "files" / "utils.py").read_text(encoding="utf-8")
    return {
        "task.yml": filled("task.yml"),
        f"{name}.yaml": filled("lm_eval.yaml"),
        "utils.py": functions,
        # A subfolder, because lm-eval runs every YAML file that is directly in a folder if
        # `--tasks` names the folder.
        f"{TWIN}/{name}-gen.yaml": filled("lm_eval_gen.yaml"),
        f"{TWIN}/utils.py": functions,
        f"{name}.lora.yml": filled("lora_head.yml") + _lora(new),
        "arms.yml": (
            "# One training per arm. The arm decides which text goes with the label.\n"
            f"regreason_arm: [{', '.join(new.arms)}]\n"
        ),
        "README.md": filled("README.md"),
    }


def _words(new: NewTask) -> dict[str, Any]:
    """The variables of the templates."""
    task, name, dest = new.task, new.task.name, new.dest.as_posix()
    data: dict[str, str | None]
    tables = {str(split or "train"): table for split, table in task.data.tables()}
    if task.data.path is not None:
        there = (new.dest.parent.resolve() / new.dest.name).as_posix()
        paths = {
            split: Path(os.path.relpath(path.resolve(), there)).as_posix()
            for split, path in zip(tables, task.data.files(), strict=True)
        }
        data = {"path": paths.pop("train"), **paths}
    else:
        data = {"hub": task.data.hub, "config": task.data.config, "split": task.data.split}
        data |= {split: table.split for split, table in tables.items() if split != "train"}
    two = len(task.labels) == 2
    metrics = [
        *_ANY[:2],
        *(_ORDINAL if task.ordinal else ()),
        *(_TWO if two else ()),
        *_ANY[2:],
    ]

    def evaluation(results: str, adapter: dict[str, str]) -> str:
        command = LmEvalCommand(
            program=("lm_eval",),
            model="hf",
            model_args={"pretrained": new.base, **adapter},
            tasks=[name],
            include_path=dest,
            output_path=f"runs/{name}/results/{results}",
        )
        return command.line(variable="arm", width=90)

    return {
        "new": new,
        "task": task,
        "name": name,
        "dest": dest,
        "configs": FOLDER,
        "table": task.data.path.name if task.data.path else task.data.hub,
        "data": {key: value for key, value in data.items() if value},
        "two": two,
        # lm-eval needs each metric's standard error right after the metric.
        "metrics": [
            line
            for metric, function, higher in metrics
            for line in (
                (metric, function, higher),
                (f"{metric}_stderr", f"{function}_stderr", "false"),
            )
        ]
        + [("undefined", "undefined", "false")] * task.ordinal,
        "evaluation": evaluation,
    }


def _lora(new: NewTask) -> str:
    """The shipped config for a CPU, from its first section on, filled with this task's values."""
    shipped_text = (shipped() / "cpu" / "lora.yml").read_text(encoding="utf-8")
    values = yaml.safe_load(shipped_text)

    def own(path: str) -> str:
        return path.replace("runs/demo/", f"runs/{new.task.name}/", 1)

    text = with_values(
        shipped_text,
        {
            ("regreason_arm",): new.main_arm,
            ("regreason_eval_include_path",): scalar(new.dest.as_posix()),
            ("base_model",): scalar(new.base),
            ("datasets", 0, "path"): own(values["datasets"][0]["path"]),
            ("test_datasets", 0, "path"): own(values["test_datasets"][0]["path"]),
            ("dataset_prepared_path",): own(values["dataset_prepared_path"]),
            ("output_dir",): own(values["output_dir"]),
            ("num_epochs",): "3",
            ("logging_steps",): "10",
        },
    )
    return _SECTION.lstrip() + text.partition(_SECTION)[2]
