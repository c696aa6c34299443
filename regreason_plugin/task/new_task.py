"""The folder that `regreason task new` writes: every file a task of one's own needs.

The files are those of ``task/files``, in which ``@word@`` stands for what differs. Labels,
columns, paths and titles come from the data: they stand in YAML as scalars, never as YAML.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from regreason_plugin.core import markdown
from regreason_plugin.core.declaration import TEXT, check_beginnings
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.task_file import TaskFile, check_prompt
from regreason_plugin.core.whole_files import atomic_writer, whole_folder
from regreason_plugin.task.plan import NewTask
from regreason_plugin.task.readme import readme_words
from regreason_plugin.task.shipped_configs import FOLDER, shipped

_PLACE = re.compile(r"@(\w+)@")
_PLAIN = re.compile(r"[\w./~+-]+")
# Its labels are listed in the prompt up to so many.
_LISTED = 40
# Metric, aggregation of lm-eval's and its standard error's, whether higher is better.
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


def default_end(labels: Sequence[str]) -> str:
    """What to write after every label: nothing, if none is the beginning of another.

    Raises:
        UserError: The labels hold every mark that could tell them apart.
    """
    for end in ("", ".", ";", "|", "#"):
        try:
            check_beginnings([label + end for label in labels])
        except ValueError:
            continue
        return end
    raise UserError(
        "one label is the beginning of another, and no mark at their end tells them apart"
    )


def default_prompt(column: str, labels: Sequence[str], ordinal: bool) -> str:
    """A prompt that asks for the label and says which there are.

    Args:
        column: The label's.
        labels: In their order.
        ordinal: Whether it means something.
    """
    between = " | " if any(";" in label for label in labels) else "; "
    listed = between.join(labels) if len(labels) <= _LISTED else ""
    if ordinal and all(re.fullmatch(r"-?\d+", label) for label in labels):
        choice = f", on a scale from {labels[0]} (lowest) to {labels[-1]} (highest)"
    elif ordinal:
        choice = f", on a scale from low to high: {listed}" if listed else ""
    else:
        choice = f", one of: {listed}" if listed else ""
    name = markdown.one_line(column) or "label"
    for asked in (f"{name}{choice}", f"label{choice}", name, "label"):
        try:
            return check_prompt(f"{TEXT}\n\nGive the text's {asked}.\nAnswer:")
        except ValueError:  # a brace in a label or the column
            continue
    raise AssertionError("the last of these prompts holds no data")


def check_dest(dest: Path) -> None:
    """Refuse a folder that is there, or whose name commands would not read back.

    Raises:
        UserError: So it is.
    """
    if not _PLAIN.fullmatch(str(dest)) or str(dest).startswith("-"):
        raise UserError(
            f"--out {str(dest)!r} stands in commands, so it may hold letters, digits and ._-+/ only"
        )
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UserError("is there already; name another --out, or remove it", path=dest)


def check_is_free(name: str) -> None:
    """Refuse the name of a task or group of lm-eval.

    Raises:
        UserError: It is one.
    """
    if name in _lm_eval_names():
        raise UserError(f"{name!r} is a task or group of lm-eval already; choose another name")


@cache
def _lm_eval_names() -> frozenset[str]:
    from lm_eval.tasks import TaskManager

    return frozenset(TaskManager().all_tasks)


def write_task(new: NewTask) -> list[Path]:
    """Write the folder, whole or not at all.

    Returns:
        Its files.

    Raises:
        UserError: The folder is there, or cannot be written.
    """
    check_dest(new.dest)
    contents = _contents(new)
    with whole_folder(new.dest) as written:
        for name, text in contents.items():
            with atomic_writer(written / name) as stream:
                stream.write(text.encode("utf-8"))
    return [new.dest / name for name in contents]


def scalar(text: str) -> str:
    """A text as a scalar of YAML, on one line."""
    style = '"' if len(text.splitlines()) > 1 else None
    dumped = yaml.safe_dump(text, allow_unicode=True, width=10**9, default_style=style)
    return dumped.removesuffix("\n").removesuffix("\n...")


def block(text: str) -> str:
    """A text of several lines as YAML's readable block, where that keeps every character."""
    shown = "|-\n" + "\n".join(f"  {line}" if line else "" for line in text.split("\n"))
    try:
        same = yaml.load(f"key: {shown}\n", Loader=yaml.BaseLoader) == {"key": text}  # noqa: S506
    except yaml.YAMLError:
        same = False
    return shown if same else scalar(text)


def _contents(new: NewTask) -> dict[str, str]:
    task = new.task
    words = {**_names(new), **_metric_words(task)}
    return {
        "task.yml": _filled("task.yml", _task_words(new)),
        f"{task.name}.yaml": _filled("lm_eval.yaml", words),
        "utils.py": _text("utils.py"),
        # Where `--tasks NAME` is also a folder's name, lm-eval runs every YAML file right in it.
        f"{TWIN}/{task.name}-gen.yaml": _filled("lm_eval_gen.yaml", words),
        f"{TWIN}/utils.py": _text("utils.py"),
        f"{task.name}.lora.yml": _lora(new),
        "arms.yml": (
            "# One training an arm: what follows the label in what the model learns to write.\n"
            f"regreason_arm: [{', '.join(new.arms)}]\n"
        ),
        "README.md": _filled("README.md", {**_names(new), **readme_words(new)}),
    }


def _text(name: str) -> str:
    return (files("regreason_plugin.task") / "files" / name).read_text(encoding="utf-8")


def _filled(name: str, words: dict[str, str]) -> str:
    # In one pass, so that what is filled in is never filled in itself.
    return _PLACE.sub(lambda match: words[match[1]], _text(name))


def _names(new: NewTask) -> dict[str, str]:
    return {
        "name": scalar(new.task.name),
        "plain": new.task.name,
        "dest": new.dest.as_posix(),
    }


def _task_words(new: NewTask) -> dict[str, str]:
    task = new.task
    columns = task.columns
    optional = {"explanation": columns.explanation, "id": columns.id, "group": columns.group}
    data: dict[str, str | None]
    if task.data.path is not None:
        there = (new.dest.parent.resolve() / new.dest.name).as_posix()
        data = {"path": Path(os.path.relpath(task.data.path.resolve(), there)).as_posix()}
    else:
        data = {"hub": task.data.hub, "config": task.data.config, "split": task.data.split}
    about = "Low to high." if task.ordinal else "Their order means nothing."
    if not task.ordinal and len(task.labels) == 2:
        about = "AUROC takes the second for the positive one."
    return {
        **_names(new),
        "text": scalar(columns.text),
        "label": scalar(columns.label),
        **{what: f" {scalar(name)}" if name else "" for what, name in optional.items()},
        "title": scalar(task.title),
        "data": "\n".join(f"  {key}: {scalar(value)}" for key, value in data.items() if value),
        "about_labels": about,
        "labels": "\n".join(f"  - {scalar(label)}" for label in task.labels),
        "label_end": scalar(task.label_end),
        "ordinal": str(task.ordinal).lower(),
        "prompt": block(task.prompt),
        "values": "".join(
            f"\n  {scalar(value)}: {scalar(label)}" for value, label in task.values.items()
        )
        or " {}",
        "look_alikes": task.look_alikes,
    }


def _metric_words(task: TaskFile) -> dict[str, str]:
    about = "No order, so nothing that measures how far off a label is."
    if task.ordinal:
        about = "The labels have an order, so there are also qwk, mae, spearman and within_1."
    if len(task.labels) == 2:
        about += " AUROC takes the second label for the positive one."
    return {
        "about_metrics": about,
        "metrics": _metric_lines(task, ""),
        "forced_metrics": _metric_lines(task, "forced_"),
    }


def _metric_lines(task: TaskFile, prefix: str) -> str:
    metrics = [*_ANY]
    metrics[2:2] = [*(_ORDINAL if task.ordinal else ()), *(_TWO if len(task.labels) == 2 else ())]
    lines = []
    for metric, function, higher in metrics:
        lines += [(metric, function, higher), (f"{metric}_stderr", f"{function}_stderr", "false")]
    if task.ordinal:
        lines.append(("undefined", "undefined", "false"))
    return "\n".join(
        f"  - {{metric: {prefix}{metric}, aggregation: !function utils.{function}, "
        f"higher_is_better: {higher}}}"
        for metric, function, higher in lines
    )


def _lora(new: NewTask) -> str:
    """The shipped config for a CPU with this task's folders in it."""
    name, dest = new.task.name, new.dest.as_posix()
    text = (shipped() / "cpu" / "lora.yml").read_text(encoding="utf-8")
    _, _, keys = text.partition("\n# --- The plugin ")
    head = (
        f"# LoRA for the task {name}, an arm after the other.\n#\n"
        f"#   regreason build {dest}/task.yml --out runs/{name}/data\n"
        f"#   axolotl train {dest}/{name}.lora.yml --sweep {dest}/arms.yml\n#\n"
        "# Made for a small model on a CPU. On a GPU write `bf16: auto` and `tf32: auto`, and see\n"
        f"# {FOLDER}/gpu/ for what models of 7B want (`regreason fetch configs` copies it).\n#\n"
        "# All paths are relative to the folder you stand in. The keys are Axolotl's\n"
        "# (https://docs.axolotl.ai/docs/config-reference.html) but for those that start with\n"
        '# `regreason_`. "Default" is what happens when a key is left out.\n\n'
        "# --- The plugin "
    )
    changes = (
        ("runs/demo/", f"runs/{name}/"),
        (" or `regreason build mini`\n", "\n"),
        ("regreason_arm: explanation\n", f"regreason_arm: {new.main_arm}\n"),
        (
            " This one ships with the project; base.yml says how it was made.\n# No default.\n"
            f"base_model: {FOLDER}/cpu/tiny-base\n",
            f" No default.\nbase_model: {scalar(new.base)}\n",
        ),
        ("# as 'regreason_*'; the results", f"# as {name}; the results"),
        ("regreason_eval_include_path:\n", f"regreason_eval_include_path: {scalar(dest)}\n"),
        ("num_epochs: 1\n", "num_epochs: 3\n"),
        ("logging_steps: 50", "logging_steps: 10"),
    )
    for old, changed in changes:
        assert old in keys, f"the shipped config no longer has {old!r}"
        keys = keys.replace(old, changed)
    return head + keys
