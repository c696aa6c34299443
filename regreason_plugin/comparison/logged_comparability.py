"""Checks that decide whether results on any tasks of lm_eval may be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regreason_plugin.comparison.arms import Arms
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.logged_task import LoggedTask
from regreason_plugin.evaluate.results import Run, first_names

_SETUP: dict[str, Callable[[Run], Any]] = {
    "lm_eval's version": lambda run: run.environment.get("lm_eval_version"),
}
# Facts that determine the prompts; of paired models they must be equal.
_PROMPTS: dict[str, Callable[[Run], Any]] = {
    "chat template": lambda run: run.environment.get("chat_template_sha"),
    "system instruction": lambda run: run.inputs.get("system_instruction_sha"),
}
_TASK: dict[str, Callable[[LoggedTask], Any]] = {
    "the number of few-shot examples": lambda result: result.fewshot,
    "the task's version": lambda result: result.version,
}


def check_logged_comparable(arms: Arms) -> list[str]:
    """The tasks that all models have, by group and name.

    Raises:
        UserError: There is none, or models were scored with another version of lm_eval or of the
            task, another data set, or another number of examples; or paired models with another
            template or instruction.
    """
    first, *others = arms.models
    shared = [task for task in first.logged if all(task in run.logged for run in others)]
    if not shared:
        names = "; ".join(
            f"{run.name!r} has {first_names(sorted(run.logged))}" for run in arms.models
        )
        raise UserError(f"no task was scored for every model: {names}")
    for run, partner in zip(arms.models, arms.partners, strict=True):
        base = arms.models[partner]
        _check(_SETUP, first, run, run)
        _check(_PROMPTS, base, run, run)
        for task in shared:
            _check(_TASK, first.logged[task], run.logged[task], run, f"{task} of ", first.name)
    return sorted(shared, key=lambda task: (first.logged[task].group, task))


def _check(
    facts: dict[str, Callable[[Any], Any]],
    base: Any,
    other: Any,
    run: Run,
    task: str = "",
    name: str = "",
) -> None:
    """Refuse two runs, or two results of a task, that differ in a fact."""
    for fact, value_of in facts.items():
        ours, theirs = value_of(base), value_of(other)
        if ours != theirs:
            raise UserError(
                f"{task}{run.name!r} and {name or base.name!r} differ in {fact} ({theirs!r} and "
                f"{ours!r}); score both in the same way",
                path=run.folder,
            )
