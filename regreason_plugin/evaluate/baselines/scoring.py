"""Scores by lm-eval itself, of a classifier and of the base model as it is."""

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
    """What `lm_eval --log_samples --output_path` does, for a model that is at hand.

    Args:
        lm: The classifier.
        work: What it is to do; lm-eval makes a folder in its ``out``.
        tasks: To score.
        model_args: What the results say of the classifier; ``pretrained`` or ``peft`` names its
            folder.
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
    """Refuse to go on with results that lm-eval could not write: it only logs that.

    Raises:
        UserError: A file is missing or cut off.
    """
    if any(out.rglob("results_*.json")) and not any(
        scored_ids(result) is None for result in read_run(out.name, out).tasks.values()
    ):
        return
    raise UserError(
        "lm_eval could not write all its results there; see that the disk is not full and that it "
        "may be written to, and run the command again",
        path=out,
    )


def task_manager(data: Path, include: Path | None) -> Any:
    """lm-eval's, with our tasks and the user's own."""
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
        method: Of which an error speaks.
        command: Whose flags are taken.
        out: Where it has the results written.

    Raises:
        UserError: It ended with an error, which it has said.
    """
    from regreason_plugin.evaluate.eval_command import main

    if main(command.flags()):
        raise UserError(f"{method}: lm_eval ended with the error above")
    _check_written(out)
    newest = max(out.rglob("results_*.json"), key=lambda file: file.name)
    results = json.loads(newest.read_text(encoding="utf-8"))
    return ScoringCost.model_validate(results["config"][SCORING])
