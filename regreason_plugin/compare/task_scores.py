"""Everything that is needed of one task, after its documents have been read and paired."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.compare.document_pairs import check_same_answers
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.samples import Answers, read_answers, samples_file
from regreason_plugin.evaluate.task_setting import TaskSetting
from regreason_plugin.metrics.group_sums import (
    Array,
    Integers,
    Statistic,
    Sums,
    confidences,
    document_values,
    statistics_of,
    sums_of,
)
from regreason_plugin.metrics.label_metrics import ECE_BINS, bins_of

# Below this, starting processes takes longer than reading.
_MUCH = 64 * 2**20


@dataclass(frozen=True)
class TaskScores:
    """All models in one task of N documents; models in the order of the runs.

    Attributes:
        task: Its name.
        setting: What it asks.
        folder: The sha256 of its data folder, within which a group's name means one thing.
        ids: The documents, ``[N]``.
        labels: The right ones, ``[N]``.
        sums: By group.
        statistics: By metric.
        values: By metric that is a mean, the documents' own values, ``[models, N]``.
        probabilities: Of the labels, ``[models, N, labels]``.
        predictions: ``[models, N]``.
        bins: ``[models, bins, (count, confidence, correct)]``, summed.
        confusion: ``[models, label, prediction]``, counts.
    """

    task: str
    setting: TaskSetting
    folder: str
    ids: list[str]
    labels: Integers
    sums: Sums
    statistics: dict[str, Statistic] = field(repr=False)
    values: dict[str, NDArray[np.float32]] = field(repr=False)
    probabilities: NDArray[np.float32] = field(repr=False)
    predictions: NDArray[np.int16] = field(repr=False)
    bins: Array = field(repr=False)
    confusion: Integers = field(repr=False)


def read_tasks(
    runs: Sequence[Run], tasks: Sequence[str], advance: Callable[[int], object] = lambda _: None
) -> list[TaskScores]:
    """Read and score tasks, in several processes where there is much to read.

    Args:
        runs: The models.
        tasks: Names of tasks that all of them have.
        advance: Told how many are done.

    Raises:
        UserError: Samples are missing or broken, or are not of the same documents.
    """
    files = [samples_file(run.tasks[task]) for run in runs for task in tasks]
    size = sum(file.stat().st_size for file in files if file.is_file())
    read = partial(score_task, runs)
    processes = min(os.cpu_count() or 1, len(tasks)) if size > _MUCH else 1
    found = []
    if processes > 1:
        # (A fork would copy whatever threads the libraries have started.)
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for scores in pool.map(read, tasks):
                found.append(scores)
                advance(1)
        return found
    for task in tasks:
        found.append(read(task))
        advance(1)
    return found


def score_task(runs: Sequence[Run], task: str) -> TaskScores:
    """Read what all models answered in one task."""
    models: list[Answers] = []
    for run in runs:
        answers = read_answers(run.tasks[task])
        if models:
            check_same_answers(models[0], answers, _names(runs[0], run))
        models.append(answers)
    sums = sums_of(models)
    values = [document_values(answers) for answers in models]
    return TaskScores(
        task=task,
        setting=runs[0].tasks[task].setting,
        folder=runs[0].tasks[task].data["sha256"],
        ids=models[0].ids,
        labels=models[0].labels,
        sums=sums,
        statistics=statistics_of(sums),
        values={
            name: np.stack([of[name] for of in values]).astype(np.float32) for name in values[0]
        },
        probabilities=np.stack([np.exp(a.log_probabilities) for a in models]).astype(np.float32),
        predictions=np.stack([a.predictions for a in models]).astype(np.int16),
        bins=np.stack([_bins(answers) for answers in models]),
        confusion=np.stack([_confusion(answers) for answers in models]),
    )


def _names(base: Run, other: Run) -> tuple[str, str]:
    """What two models are called in a message; seeds of one arm share its name."""
    if base.name != other.name:
        return base.name, other.name
    return f"{base.name}, {base.model}", f"{other.name}, {other.model}"


def _bins(answers: Answers) -> Array:
    confidence = confidences(answers)
    sums = np.zeros((ECE_BINS, 3))
    row = np.stack([np.ones_like(confidence), confidence, answers.correct], axis=1)
    np.add.at(sums, bins_of(confidence), row)
    return sums


def _confusion(answers: Answers) -> Integers:
    counts = np.zeros((answers.count, answers.count), dtype=np.int64)
    np.add.at(counts, (answers.labels - 1, answers.predictions - 1), 1)
    return counts
