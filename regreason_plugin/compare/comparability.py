"""What has to be the same of several models' results before one stands beside another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import Run, TaskResult
from regreason_plugin.evaluate.task_setting import OF_TASK


def tasks_of(run: Run) -> list[str]:
    """A run's tasks in the order of the eighteen settings, then others by name.

    Raises:
        UserError: Both label-first and generative tasks are among them.
    """
    tasks = sorted(run.tasks, key=lambda task: _place(run.tasks[task]))
    if len({run.tasks[task].setting.generative for task in tasks}) > 1:
        raise UserError(
            "holds both label-first and generative tasks, which are never mixed; "
            "keep them in two folders",
            path=run.folder,
        )
    return tasks


def _place(result: TaskResult) -> tuple[bool, int, str]:
    place = result.setting.place
    return place is None, place or 0, result.task


def is_generative(run: Run) -> bool:
    """Whether a run's tasks are the twins for models that explain first.

    Raises:
        UserError: As `tasks_of`.
    """
    return run.tasks[tasks_of(run)[0]].setting.generative


def check_same_protocol(base: Run, run: Run) -> None:
    """Refuse results of label-first tasks beside results of generative ones.

    Raises:
        UserError: One run has these, the other those.
    """
    if is_generative(run) != is_generative(base):
        raise UserError(
            f"one of {run.name!r} and {base.name!r} has label-first tasks and the other "
            "generative ones, which are never mixed; keep them apart",
            path=run.folder,
        )


def describe_data(data: dict[str, Any]) -> str:
    """Where the documents come from, in a few words; generated ones are called so."""
    what = "GENERATED data (mini benchmark)" if "generated" in str(data.get("origin")) else "data"
    raters = f" rated by {', '.join(data['raters'])}" if data.get("raters") else ""
    folders = " and ".join(sha256[:12] for sha256 in data["sha256"].split(", "))
    return f"{what}{raters}, sha256 {folders}"


def data_of(results: Iterable[TaskResult]) -> dict[str, Any]:
    """What tasks say of their data folders: once what is alike, else every value, as text."""
    told: dict[str, list[Any]] = {}
    for result in results:
        for key, value in result.data.items():
            values = told.setdefault(key, [])
            if key not in OF_TASK and value not in values:
                values.append(value)
    return {key: _in_one(values) for key, values in told.items() if values}


def _in_one(values: list[Any]) -> Any:
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, list) for value in values):
        return list(dict.fromkeys(inner for value in values for inner in value))
    return ", ".join(map(str, values))


def check_names(runs: list[Run]) -> None:
    """Refuse two runs of one name.

    Raises:
        UserError: A name stands twice.
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise UserError(f"a name stands twice among {', '.join(names)}; give each run its own")


def check_same_setup(base: Run, run: Run) -> None:
    """Refuse runs that lm_eval was called for in different ways.

    Raises:
        UserError: They differ in --limit, the chat template or lm_eval's version.
    """
    for what, of in _SETUP.items():
        ours, theirs = of(base), of(run)
        if ours != theirs:
            raise UserError(
                f"{run.name!r} and {base.name!r} differ in {what} ({theirs!r} and {ours!r}); "
                "score both in the same way",
                path=run.folder,
            )


_SETUP: dict[str, Callable[[Run], Any]] = {
    "--limit": lambda run: run.config.get("limit"),
    "chat template": lambda run: run.environment.get("chat_template_sha"),
    "lm_eval's version": lambda run: run.environment.get("lm_eval_version"),
}


def check_same_documents(base: Run, run: Run, task: str) -> None:
    """Refuse a task that two runs did not score on the same documents.

    Raises:
        UserError: ``run`` has no such task, or they differ in data, labels, few-shot examples
            or the task's version. (Which documents were scored is `pairing`'s to check.)
    """
    if task not in run.tasks:
        raise UserError(
            f"{run.name!r} has no {task}, which {base.name!r} has; score it too", path=run.folder
        )
    ours, theirs = base.tasks[task], run.tasks[task]
    for what, of in _DOCUMENTS.items():
        if of(ours) != of(theirs):
            raise UserError(
                f"{task} of {run.name!r} and of {base.name!r} differ in {what} "
                f"({of(theirs)!r} and {of(ours)!r}); score both on the same data in the same way",
                path=theirs.source,
            )


_DOCUMENTS: dict[str, Callable[[TaskResult], Any]] = {
    "data": lambda result: result.data["sha256"],
    "labels": lambda result: result.setting.labels,
    "few-shot examples": lambda result: result.fewshot,
    "task version": lambda result: result.version,
}
