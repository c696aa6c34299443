"""Reads the results of our tasks from a results file of lm_eval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.task_setting import TaskSetting, is_regreason_task, setting_of
from regreason_plugin.metrics.metric_names import ACTIVATION_DEFINITION, FORCED

# Suffixes of metrics whose values are lists or texts, not numbers.
_NO_NUMBERS = ("_by_layer", "_by_layer_se", "deciding_token", ACTIVATION_DEFINITION)


@dataclass(frozen=True)
class TaskResult:
    """One model's results on one task, from one results file.

    Attributes:
        task: The task's name.
        metrics: Values by metric; None where undefined.
        stderrs: Standard errors by metric; None where undefined.
        documents: Number of scored documents according to lm_eval. With ``--samples``, lm_eval
            0.4.11 gives the number of all documents instead; `samples.scored_ids` counts the
            scored ones.
        original: Number of documents of the task.
        fewshot: Number of examples in the prompt.
        version: The task's version.
        data: ``metadata.data``: the data folder's origin, sha256 and more, and the description
            of the task.
        setting: The description of the task, validated.
        source: The results file.
        deciding_token: The input token at the deciding position, for a model with probes; a list
            if documents differ. For a generative twin, the token before the forced label, which
            follows the same text for every model.
        activation_definition: The weights whose entropy is the activation entropy; a list if
            documents differ, None for results without this key.
        samples_hash: lm_eval's hash of all samples; None if the file has none.
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
    """The results of our tasks in a results file, by task name.

    Args:
        content: The file's content.
        file: The file's path.

    Raises:
        UserError: A task has no accuracy, or does not name the data that it was scored on.
    """
    results: dict[str, TaskResult] = {}
    for task, values in content["results"].items():
        data = _data(content, task)
        if not is_regreason_task(task, data):
            continue
        metrics: dict[str, float | None] = {}
        stderrs: dict[str, float | None] = {}
        for key, value in values.items():
            metric, _, _filter = key.partition(",")
            # lm_eval also adds a standard error of each standard error, which is always empty.
            if not _filter or metric.endswith("_stderr_stderr"):
                continue
            # The standard errors of lists and texts are always empty, too.
            if metric.removesuffix("_stderr").endswith(_NO_NUMBERS):
                continue
            number = value if isinstance(value, int | float) else None
            if metric.endswith("_stderr"):
                stderrs[metric.removesuffix("_stderr")] = number
            else:
                metrics[metric] = number
        if "acc" not in metrics:
            raise UserError(
                f"task {task} has no metric 'acc'; if it was scored with --predict_only, score it "
                "again without",
                path=file,
            )
        if not data.get("sha256"):
            raise UserError(
                f"the results of task {task} do not name the data that it was scored on; score "
                "the task again",
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
    """A text value of the probes; for a generative twin, the value with the label forced."""
    return values.get(f"{FORCED}{name},none", values.get(f"{name},none"))


def _data(content: dict[str, Any], task: str) -> dict[str, Any]:
    """``metadata.data`` of a task; empty if it is no dict, as in other people's tasks."""
    inner: Any = content
    for key in ("configs", task, "metadata", "data"):
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else {}
