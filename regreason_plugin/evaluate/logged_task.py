"""Any task in a results file of lm_eval: its metrics, and the setup in which it was scored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regreason_plugin.core.errors import UserError

# The filter of tasks that declare none.
_NO_FILTER = "none"
# Error rates that lm_eval 0.4.11 declares as better if higher.
_LOWER_IS_BETTER = ("ter",)


@dataclass(frozen=True)
class LoggedMetric:
    """One metric of a task, as lm_eval computed it.

    Attributes:
        name: The metric's name, such as ``exact_match``.
        filter: The filter of the answers that it was computed from; ``none`` without one.
        value: The metric over all documents.
        listed: Whether the task's ``metric_list`` names the metric. If it then names no
            aggregation, lm_eval takes the metric's own.
        aggregation: The name of the function that makes the value from the documents' values; None
            if the results do not name it. (Of a function in a task's own file they hold the text.)
        better: Whether higher or lower values are better; None if the task does not say.
    """

    name: str
    filter: str
    value: float
    listed: bool
    aggregation: str | None
    better: Literal["higher", "lower"] | None

    @property
    def key(self) -> str:
        """The metric's name, with the filter if the task has one: ``exact_match,strict-match``."""
        return self.name if self.filter == _NO_FILTER else f"{self.name},{self.filter}"


@dataclass(frozen=True)
class LoggedTask:
    """One model's results on one task of lm_eval.

    Attributes:
        task: The task's name.
        group: The outermost group of tasks that it was scored in; empty without one.
        groups: All groups that it was scored in.
        output_type: lm_eval's kind of request, such as ``multiple_choice``.
        dataset: The data set's path, name and split, which identify the documents.
        metrics: The metrics by key, in lm_eval's order; the first one is the task's main metric.
        documents: Number of scored documents according to lm_eval.
        fewshot: Number of examples in the prompt.
        fewshot_seed: The seed by which the examples were chosen; None if it is not recorded.
        version: The task's version.
        samples_hash: lm_eval's hash of all samples; None if the file has none.
        source: The results file.
    """

    task: str
    group: str
    groups: tuple[str, ...]
    output_type: str
    dataset: str
    metrics: dict[str, LoggedMetric]
    documents: int
    fewshot: int
    fewshot_seed: int | None
    version: str
    samples_hash: str | None
    source: Path


def logged_tasks(content: dict[str, Any], file: Path) -> dict[str, LoggedTask]:
    """All tasks in a results file, by name, without groups of tasks.

    Metrics whose value is not a number are left out.

    Args:
        content: The file's content.
        file: The file's path.

    Raises:
        UserError: A task has no metrics.
    """
    members = content.get("group_subtasks", {})
    configs, counts = content.get("configs", {}), content.get("n-samples", {})
    return {
        task: LoggedTask(
            task=task,
            group=(*_groups_of(task, members), "")[0],
            groups=_groups_of(task, members),
            output_type=str(configs[task].get("output_type")),
            dataset=" ".join(
                str(configs[task].get(key))
                for key in ("dataset_path", "dataset_name", "dataset_kwargs", "test_split")
            ),
            metrics=_metrics(content, task, file),
            documents=int(counts.get(task, {}).get("effective", 0)),
            fewshot=int(content.get("n-shot", {}).get(task) or 0),
            fewshot_seed=content.get("config", {}).get("fewshot_seed"),
            version=str(content.get("versions", {}).get(task, "")),
            samples_hash=content.get("task_hashes", {}).get(task),
            source=file,
        )
        for task in content["results"]
        # A group has aggregated results but no config.
        if task in configs
    }


def _groups_of(task: str, members: dict[str, list[str]]) -> tuple[str, ...]:
    """The groups that a task or group was scored in, the outermost first."""
    own = [group for group, inner in members.items() if task in inner]
    return tuple(dict.fromkeys([g for one in own for g in (*_groups_of(one, members), one)]))


def _metrics(content: dict[str, Any], task: str, file: Path) -> dict[str, LoggedMetric]:
    values = content["results"][task]
    better = content.get("higher_is_better", {}).get(task, {})
    declared = {
        str(one.get("metric")): one
        for one in content["configs"][task].get("metric_list") or []
        if isinstance(one, dict)
    }
    metrics = {}
    for key, value in values.items():
        name, comma, of_filter = key.partition(",")
        if not comma or name.endswith("_stderr") or not isinstance(value, int | float):
            continue
        if math.isnan(value):
            continue
        aggregation = declared.get(name, {}).get("aggregation")
        higher = better.get(name, declared.get(name, {}).get("higher_is_better"))
        if name in _LOWER_IS_BETTER:
            higher = False
        one = LoggedMetric(
            name=name,
            filter=of_filter,
            value=float(value),
            listed=name in declared,
            aggregation=aggregation if str(aggregation).isidentifier() else None,
            better=None if higher is None else "higher" if higher else "lower",
        )
        metrics[one.key] = one
    if not metrics:
        raise UserError(
            f"task {task} has no metrics; if it was scored with --predict_only, score it again "
            "without",
            path=file,
        )
    return metrics
