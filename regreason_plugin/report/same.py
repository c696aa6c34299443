"""What has to be the same of several models' results before one stands beside another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regreason_plugin.errors import UserError
from regreason_plugin.report.results import TASKS, Run, TaskResult


def tasks_of(run: Run) -> list[str]:
    """A run's tasks in the order of the settings.

    Raises:
        UserError: Both label-first and generative tasks are among them.
    """
    tasks = [task for task in TASKS if task in run.tasks]
    if len({is_generative(task) for task in tasks}) > 1:
        raise UserError(
            "holds both label-first and generative tasks, which are never mixed; "
            "keep them in two folders",
            path=run.folder,
        )
    return tasks


def is_generative(task: str) -> bool:
    """Whether it is the twin of a task for models that explain first."""
    return task.startswith("regreason-gen_")


def check_same_protocol(base: Run, run: Run) -> None:
    """Refuse results of label-first tasks beside results of generative ones.

    Raises:
        UserError: One run has these, the other those.
    """
    if is_generative(tasks_of(run)[0]) != is_generative(tasks_of(base)[0]):
        raise UserError(
            f"one of {run.name!r} and {base.name!r} has label-first tasks and the other "
            "generative ones, which are never mixed; keep them apart",
            path=run.folder,
        )


def describe_data(data: dict[str, Any]) -> str:
    """Where the documents come from, in a few words; generated ones are called so."""
    what = "GENERATED data (mini benchmark)" if data.get("origin") == "generated" else "data"
    raters = f" rated by {', '.join(data['raters'])}" if data.get("raters") else ""
    return f"{what}{raters}, sha256 {data['sha256'][:12]}"


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
        UserError: ``run`` has no such task, or they differ in data, number of documents,
            few-shot examples or the task's version.
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
    "number of documents": lambda result: result.documents,
    "few-shot examples": lambda result: result.fewshot,
    "task version": lambda result: result.version,
}
