"""What lm_eval's results file says of each task of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.task_setting import TaskSetting, is_ours, setting_of
from regreason_plugin.metrics.metric_names import ACTIVATION_DEFINITION, FORCED

# Metrics whose values are no single numbers: a list, or a text.
_NO_NUMBERS = ("_by_layer", "_by_layer_se", "deciding_token", ACTIVATION_DEFINITION)


@dataclass(frozen=True)
class TaskResult:
    """What lm_eval wrote of one task.

    Attributes:
        task: Its name.
        metrics: By key, None where undefined.
        stderrs: The standard errors, likewise.
        documents: How many were scored, as lm_eval says: 0.4.11 says all of the task's also where
            ``--samples`` chose some (`samples.scored_ids` counts them).
        original: How many the task has.
        fewshot: Examples in the prompt.
        version: The task's.
        data: Origin, sha256 and more of the data folder, and what the task asks.
        setting: The latter, checked.
        source: The results file.
        deciding_token: The input token at which a model with probes decides, several where
            documents differ; of a generative twin the one where the label is forced,
            which comes after the same text for every model.
        activation_definition: The weights whose entropy the activation entropy is, several where
            documents differ; None without the mark.
        samples_hash: lm_eval's hash of all samples, None without.
    """

    task: str
    metrics: dict[str, float | None]
    stderrs: dict[str, float | None]
    documents: int
    original: int
    fewshot: int
    version: str
    data: dict[str, Any]
    setting: TaskSetting
    source: Path
    deciding_token: str | list[str] | None = None
    activation_definition: str | list[str] | None = None
    samples_hash: str | None = None


def task_results(content: dict[str, Any], file: Path) -> dict[str, TaskResult]:
    """What a results file says of each task of ours that it holds, by the task's name.

    Args:
        content: The file, as lm_eval wrote it.
        file: Where it is.

    Raises:
        UserError: A task has no accuracy, or does not say on which data it was scored.
    """
    results: dict[str, TaskResult] = {}
    for task, values in content["results"].items():
        data = _data(content, task)
        if not is_ours(task, data):
            continue
        metrics: dict[str, float | None] = {}
        stderrs: dict[str, float | None] = {}
        for key, value in values.items():
            metric, _, _filter = key.partition(",")
            # lm_eval looks for an error of our errors too, and finds none.
            if not _filter or metric.endswith("_stderr_stderr"):
                continue
            # Their own standard-error cells are always empty.
            if metric.removesuffix("_stderr").endswith(_NO_NUMBERS):
                continue
            known = value if isinstance(value, int | float) else None
            if metric.endswith("_stderr"):
                stderrs[metric.removesuffix("_stderr")] = known
            else:
                metrics[metric] = known
        if "acc" not in metrics:
            raise UserError(
                f"task {task} has no 'acc' (was it run with --predict_only?)", path=file
            )
        if not data.get("sha256"):
            raise UserError(
                f"task {task} does not say which data it was scored on; score it again",
                path=file,
            )
        counts = content.get("n-samples", {}).get(task, {})
        results[task] = TaskResult(
            task=task,
            metrics=metrics,
            stderrs=stderrs,
            documents=int(counts.get("effective", 0)),
            original=int(counts.get("original", 0)),
            fewshot=int(content.get("n-shot", {}).get(task, 0)),
            version=str(content.get("versions", {}).get(task, "")),
            data=data,
            setting=setting_of(task, data, file),
            source=file,
            deciding_token=_text(values, "deciding_token"),
            activation_definition=_text(values, ACTIVATION_DEFINITION),
            samples_hash=content.get("task_hashes", {}).get(task),
        )
    return results


def _text(values: dict[str, Any], name: str) -> Any:
    """A text of the probes; of a twin that with the label forced."""
    return values.get(f"{FORCED}{name},none", values.get(f"{name},none"))


def _data(content: dict[str, Any], task: str) -> dict[str, Any]:
    """What the metadata of a task say of its data; empty of other tasks, whose may be anything."""
    inner: Any = content
    for key in ("configs", task, "metadata", "data"):
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else {}
