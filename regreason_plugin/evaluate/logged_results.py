"""Reads any tasks from lm_eval's result folders: one `Run` for each model and way of prompting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.logged_task import LoggedTask, logged_tasks
from regreason_plugin.evaluate.results import Run, first_names, identity, results_files, run_of
from regreason_plugin.evaluate.task_results import task_results


def without_regreason_tasks(folders: Iterable[tuple[str, Path]]) -> bool:
    """Whether no folder of results holds tasks of RegReason, so that other tasks are read.

    Args:
        folders: Names of models, for messages, each with a folder of its results.

    Raises:
        UserError: As in `results_files`.
    """
    return not any(
        task_results(content, file)
        for name, folder in folders
        for file, content in results_files(name, folder)
    )


def read_logged_models(name: str, folders: Sequence[Path], tasks: Sequence[str] = ()) -> list[Run]:
    """Read the results of one arm on any tasks of lm_eval.

    Each folder holds runs of its own. Within a folder, results that differ in the model, the seed
    of the few-shot examples, the system instruction or the chat template are several runs.

    Args:
        name: The arm's name.
        folders: The arm's folders of results.
        tasks: Patterns such as ``mmlu*`` of the tasks, or groups of tasks, to read; empty for all.

    Returns:
        The runs; those without a training seed are numbered in ``number``.

    Raises:
        UserError: A folder holds no such tasks, or two runs of one model on the same task.
    """
    runs: dict[tuple[Any, ...], Run] = {}
    for place, folder in enumerate(folders):
        for file, content in results_files(name, folder):
            wanted = {
                task: result
                for task, result in logged_tasks(content, file).items()
                if not tasks or is_wanted(result, tasks)
            }
            if not wanted:
                continue
            key = (place, *_prompting(content, file))
            known = runs.get(key)
            before = known.logged if known else {}
            for task in before.keys() & wanted.keys():
                raise UserError(
                    f"and {before[task].source.name} are two runs of one model on {task}; keep one "
                    f"of them for {name!r}, or give each its own NAME=RESULTS",
                    path=file,
                )
            run = run_of(name, folder, file, content)
            runs[key] = replace(run, logged={**before, **wanted})
    if not runs:
        which = f"the tasks {', '.join(tasks)}" if tasks else "tasks"
        raise UserError(
            f"holds no results of {which}; name tasks that were scored for {name!r}",
            path=folders[0],
        )
    in_order = [runs[key] for key in sorted(runs, key=str)]
    if len(in_order) == 1:
        return in_order
    return [replace(run, number=_number(in_order, index)) for index, run in enumerate(in_order)]


def read_logged_run(name: str, folder: Path, tasks: Sequence[str] | None = None) -> Run:
    """Read the results of one model; as `read_logged_models`.

    Raises:
        UserError: As in `read_logged_models`, or the folder holds several runs.
    """
    runs = read_logged_models(name, [folder], tasks or ())
    if len(runs) > 1:
        raise UserError(
            f"holds {len(runs)} runs of other models, few-shot seeds or templates "
            f"({first_names(run.model for run in runs)}); name the folder of one of them",
            path=folder,
        )
    return runs[0]


def is_wanted(result: LoggedTask, patterns: Sequence[str]) -> bool:
    """Whether a task, or a group of tasks that it was scored in, matches one of the patterns."""
    names = (result.task, *result.groups)
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _prompting(content: dict[str, Any], file: Path) -> tuple[Any, ...]:
    """A key that identifies a model and the way in which it was prompted."""
    config = content.get("config", {})
    return (
        *identity(config, file),
        content.get("system_instruction_sha"),
        content.get("chat_template_sha"),
        config.get("fewshot_seed"),
    )


def _number(runs: Sequence[Run], index: int) -> int:
    """The seed of a run's few-shot examples if it tells the runs apart; else its place."""
    seeds = [run.config.get("fewshot_seed") for run in runs]
    seed = seeds[index]
    return seed if isinstance(seed, int) and len({*seeds}) == len(seeds) else index + 1
