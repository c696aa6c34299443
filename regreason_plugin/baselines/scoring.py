"""Scores by lm-eval itself, of a classifier and of the base model as it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regreason_plugin.baselines.answering import ClassifierLM
from regreason_plugin.errors import UserError
from regreason_plugin.evaluation.run import checkout_tasks


def score_classifier(
    lm: ClassifierLM,
    name: str,
    model_args: dict[str, Any],
    data: Path,
    tasks: Sequence[str],
    out: Path,
    include: Path | None = None,
    chat: bool = False,
) -> None:
    """What `lm_eval --log_samples --output_path` does, for a model that is at hand.

    Args:
        lm: The classifier.
        name: What the results call it.
        model_args: What they say of it; ``pretrained`` or ``peft`` names its folder.
        data: The data folder.
        tasks: To score.
        out: lm-eval makes a folder in it.
        include: More task files.
        chat: Prompts in the chat template.
    """
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(out))
    results = simple_evaluate(
        model=lm,
        model_args=model_args,
        tasks=list(tasks),
        task_manager=task_manager(data, include),
        log_samples=True,
        evaluation_tracker=tracker,
        apply_chat_template=chat,
    )
    assert results is not None, "there is one process"
    samples = results.pop("samples")
    results["config"]["model"] = name
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in tasks:
        tracker.save_results_samples(task_name=task, samples=samples[task])


def task_manager(data: Path, include: Path | None) -> Any:
    """lm-eval's, with our tasks and the user's own."""
    from lm_eval.tasks import TaskManager

    ours = checkout_tasks()
    return TaskManager(
        include_path=[str(path) for path in (ours, include) if path is not None],
        include_defaults=ours is None,
        metadata={"data_dir": str(data)},
    )


def eval_arguments(
    model: str,
    data: Path,
    tasks: Sequence[str],
    out: Path,
    *,
    shots: int,
    include: Path | None = None,
    chat: bool = False,
) -> list[str]:
    """`regreason eval`'s for the untrained model."""
    arguments = [
        *("--model", "regreason-hf", "--model_args", f"pretrained={model},probe=none"),
        *("--tasks", ",".join(tasks), "--metadata", json.dumps({"data_dir": str(data)})),
        *("--batch_size", "auto", "--log_samples", "--output_path", str(out)),
    ]
    if shots:
        arguments += ["--num_fewshot", str(shots)]
    if include is not None:
        arguments += ["--include_path", str(include)]
    if chat:
        arguments += ["--apply_chat_template"]
    return arguments


class Clock:
    """Time spent in a model, and the documents it was spent on."""

    seconds = 0.0
    documents = 0


@contextmanager
def timed(model: type[Any]) -> Iterator[Clock]:
    """Within it, ``loglikelihood`` of a class of models is timed."""
    clock, original = Clock(), model.loglikelihood

    def loglikelihood(self: Any, requests: list[Any], *given: Any, **named: Any) -> Any:
        started = time.perf_counter()
        answers = original(self, requests, *given, **named)
        clock.seconds += time.perf_counter() - started
        clock.documents += len({(request.task_name, request.doc_id) for request in requests})
        return answers

    model.loglikelihood = loglikelihood
    try:
        yield clock
    finally:
        model.loglikelihood = original


def score_base(method: str, arguments: list[str]) -> Clock:
    """Run `regreason eval` in this process, and time the model.

    Raises:
        UserError: It ended with an error, which it has said.
    """
    from regreason_plugin.evaluation.model import RegReasonHF
    from regreason_plugin.evaluation.run import main

    with timed(RegReasonHF) as clock:
        if main(arguments):
            raise UserError(f"{method}: lm_eval ended with the error above")
    return clock
