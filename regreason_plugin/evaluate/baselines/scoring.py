"""Scores a classifier, or the untrained base model, with lm-eval itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regreason_plugin.core.cost import SCORING, ScoringCost
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.baselines.classifier_lm import ClassifierLM
from regreason_plugin.evaluate.baselines.work import Work
from regreason_plugin.evaluate.eval_command import checkout_tasks
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand
from regreason_plugin.evaluate.results import read_run
from regreason_plugin.evaluate.samples import scored_ids


def score_classifier(
    lm: ClassifierLM, work: Work, tasks: Sequence[str], model_args: dict[str, Any]
) -> None:
    """Do what `lm_eval --log_samples --output_path` does, for a model object.

    Args:
        lm: The classifier.
        work: The method's job; lm-eval makes a folder in its ``out``.
        tasks: Names of the tasks to score.
        model_args: The description of the classifier for the results; lm-eval names its folder
            after ``pretrained`` or ``peft``.

    Raises:
        UserError: lm-eval could not write all results.
    """
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(work.out))
    results = simple_evaluate(
        model=lm,
        model_args=model_args,
        tasks=list(tasks),
        task_manager=task_manager(work.data, work.include_path),
        log_samples=True,
        evaluation_tracker=tracker,
        apply_chat_template=work.apply_chat_template,
    )
    assert results is not None, "there is one process"
    samples = results.pop("samples")
    results["config"]["model"] = work.method
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in tasks:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    _check_written(work.out)


def _check_written(out: Path) -> None:
    """Check that lm-eval wrote all its results; it only logs an error if it could not.

    Raises:
        UserError: A file is missing or incomplete.
    """
    if any(out.rglob("results_*.json")) and not any(
        scored_ids(result) is None for result in read_run(out.name, out).tasks.values()
    ):
        return
    raise UserError(
        "lm_eval could not write all its results to this folder; make sure that the disk has "
        "space and the folder is writable, and run the command again",
        path=out,
    )


def task_manager(data: Path, include: Path | None) -> Any:
    """lm-eval's TaskManager, with our tasks and those in the user's folder ``include``."""
    from lm_eval.tasks import TaskManager

    ours = checkout_tasks()
    return TaskManager(
        include_path=[str(path) for path in (ours, include) if path is not None],
        include_defaults=ours is None,
        metadata={"data_dir": str(data)},
    )


def score_base(method: str, command: LmEvalCommand, out: Path) -> ScoringCost:
    """Run `regreason eval` in this process.

    Args:
        method: The method's name, for error messages.
        command: The command whose flags are used.
        out: The folder into which the command writes its results.

    Returns:
        The cost of the scoring, read from the results.

    Raises:
        UserError: lm-eval ended with an error, which it has printed, or could not write all
            results.
    """
    from regreason_plugin.evaluate.eval_command import main

    if main(command.flags()):
        raise UserError(f"{method}: lm_eval ended with the error above")
    _check_written(out)
    newest = max(out.rglob("results_*.json"), key=lambda file: file.name)
    results = json.loads(newest.read_text(encoding="utf-8"))
    return ScoringCost.model_validate(results["config"][SCORING])
