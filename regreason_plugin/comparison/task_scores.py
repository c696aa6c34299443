"""The scores of all models in one task: documents are read, paired, summed by group and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.comparison.comparability import check_same_answers
from regreason_plugin.comparison.comparison import ALL, Bin, Label, Setting
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.samples import read_answers, samples_file
from regreason_plugin.evaluate.task_setting import TaskSetting
from regreason_plugin.metrics.answers import Answers, Array, Integers
from regreason_plugin.metrics.calibration import (
    ECE_BINS,
    bins_of,
    calibrated_band,
    design_effect,
    ece_of_sums,
    expected_ece,
    variance_if_calibrated,
)
from regreason_plugin.metrics.group_sums import Sums, document_values, statistics_of, sums_of
from regreason_plugin.metrics.influence import Statistic

# Below this size in bytes, starting processes takes longer than reading the files.
_MUCH = 64 * 2**20


@dataclass(frozen=True)
class TaskScores:
    """The scores of all models in one task of N documents; models are in the order of the runs.

    Attributes:
        task: The name of the task.
        setting: The declaration of the task: labels, dataset, axis.
        folder: The sha256 of the data folder. Group names are unique within one folder only.
        ids: The ids of the documents, ``[N]``.
        groups: The name of each document's group, ``[N]``.
        labels: The right labels, ``[N]``.
        sums: Sums by group.
        statistics: The values of each metric, with the influence of each group.
        entropies: For each model, the members of `ENTROPIES` that its results have, compared or
            not.
        values: For each metric that is a mean, the documents' values, ``[models, N]``.
        probabilities: The probabilities of the labels, ``[models, N, labels]``.
        predictions: The predicted labels, ``[models, N]``.
        bins: Sums by bin of confidence, ``[models, bins, (count, confidence, correct)]``.
        ece: The plain expected calibration error, ``[models]``.
        ece_if_calibrated: The expected ECE of a calibrated model with the same confidences,
            ``[models]``.
        chance_variance: The variance of the miscalibration of a calibrated model with the same
            confidences, ``[models]``.
        confusion: Confusion matrices, ``[models, label, prediction]``, counts.
    """

    task: str
    setting: TaskSetting
    folder: str
    ids: list[str]
    groups: list[str]
    labels: Integers
    sums: Sums
    statistics: dict[str, Statistic] = field(repr=False)
    entropies: list[set[str]]
    values: dict[str, NDArray[np.float32]] = field(repr=False)
    probabilities: NDArray[np.float32] = field(repr=False)
    predictions: NDArray[np.int16] = field(repr=False)
    bins: Array = field(repr=False)
    ece: Array
    ece_if_calibrated: Array
    chance_variance: Array
    confusion: Integers = field(repr=False)


def read_tasks(
    runs: Sequence[Run],
    tasks: Sequence[str],
    left_out: frozenset[str] = frozenset(),
    advance: Callable[[int], object] = lambda _: None,
) -> list[TaskScores]:
    """Read and score tasks, in several processes if the files are large.

    Args:
        runs: The models.
        tasks: Names of tasks that all models have.
        left_out: The members of `ENTROPIES` that are not compared.
        advance: Called with 1 after each task.

    Raises:
        UserError: Samples are missing or broken, or are not of the same documents.
    """
    files = [samples_file(run.tasks[task]) for run in runs for task in tasks]
    size = sum(file.stat().st_size for file in files if file.is_file())
    read = partial(_score_task, runs, left_out)
    processes = min(os.cpu_count() or 1, len(tasks)) if size > _MUCH else 1
    if processes == 1:
        return _advancing(map(read, tasks), advance)
    # Not "fork": forking a process whose libraries have started threads is unsafe.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return _advancing(pool.map(read, tasks), advance)


def _advancing(each: Iterable[TaskScores], advance: Callable[[int], object]) -> list[TaskScores]:
    scores = []
    for one in each:
        scores.append(one)
        advance(1)
    return scores


def _score_task(runs: Sequence[Run], left_out: frozenset[str], task: str) -> TaskScores:
    models: list[Answers] = []
    for run in runs:
        models.append(read_answers(run.tasks[task]))
        check_same_answers(models[0], models[-1], _names(runs[0], run))
    entropies = [{_entropy(name) for name in (*one.probes, *one.layers)} for one in models]
    models = [
        replace(
            one,
            probes={name: v for name, v in one.probes.items() if _entropy(name) not in left_out},
            layers={name: v for name, v in one.layers.items() if _entropy(name) not in left_out},
        )
        for one in models
    ]
    sums = sums_of(models)
    values = [document_values(answers) for answers in models]
    bins = np.stack([_bins(answers) for answers in models])
    effects = [
        design_effect(one.confidences - one.correct, bins_of(one.confidences), sums.member)
        for one in models
    ]
    return TaskScores(
        task=task,
        setting=runs[0].tasks[task].setting,
        folder=runs[0].tasks[task].data["sha256"],
        ids=models[0].ids,
        groups=models[0].groups,
        labels=models[0].labels,
        sums=sums,
        statistics=statistics_of(models),
        entropies=entropies,
        values={
            name: np.stack([of[name] for of in values]).astype(np.float32) for name in values[0]
        },
        probabilities=np.stack([np.exp(a.log_probabilities) for a in models]).astype(np.float32),
        predictions=np.stack([a.predictions for a in models]).astype(np.int16),
        bins=bins,
        ece=ece_of_sums(bins),
        ece_if_calibrated=expected_ece(bins, np.array(effects)),
        chance_variance=np.array(
            [variance_if_calibrated(one.confidences, one.correct, sums.member) for one in models]
        ),
        confusion=np.stack([_confusion(answers) for answers in models]),
    )


def _names(base: Run, other: Run) -> tuple[str, str]:
    """The names of two models in a message; models of one arm also need the model's own name."""
    if base.name != other.name:
        return base.name, other.name
    return f"{base.name}, {base.model}", f"{other.name}, {other.model}"


def _entropy(name: str) -> str:
    """The member of `ENTROPIES` to which a probe belongs."""
    return name.removesuffix("_mid").removesuffix("_by_layer")


def _bins(answers: Answers) -> Array:
    sums = np.zeros((ECE_BINS, 3))
    confidence = answers.confidences
    row = np.stack([np.ones_like(confidence), confidence, answers.correct], axis=1)
    np.add.at(sums, bins_of(confidence), row)
    return sums


def _confusion(answers: Answers) -> Integers:
    counts = np.zeros((answers.count, answers.count), dtype=np.int64)
    np.add.at(counts, (answers.labels - 1, answers.predictions - 1), 1)
    return counts


# --- counts ---------------------------------------------------------------------------------


def setting_of(scores: TaskScores, effective_groups: float) -> Setting:
    """The description of a task's setting, with its counts."""
    setting = scores.setting
    labels = scores.confusion[0].sum(axis=1)
    return Setting(
        task=scores.task,
        dataset=setting.dataset,
        axis=setting.axis,
        title=setting.title,
        axis_title=setting.axis_title,
        documents=len(scores.ids),
        groups=len(scores.sums.groups),
        effective_groups=effective_groups,
        majority_acc=float(labels.max() / labels.sum()),
        labels=labels.tolist(),
        label_names=list(setting.labels),
        ordinal=setting.ordinal,
    )


def reliability_of(tasks: Sequence[TaskScores], models: Sequence[int]) -> list[Bin]:
    """The reliability diagram of some models, over all tasks."""
    sums = np.sum([scores.bins[list(models)].sum(axis=0) for scores in tasks], axis=0)
    low, high = calibrated_band(sums, _design_effect_of(tasks, models))
    return [
        Bin(
            low=place / ECE_BINS,
            high=(place + 1) / ECE_BINS,
            count=int(count),
            confidence=_share(confidence, count),
            accuracy=_share(correct, count),
            band_low=float(low[place]) if count else None,
            band_high=float(high[place]) if count else None,
        )
        for place, (count, confidence, correct) in enumerate(sums)
    ]


def _design_effect_of(tasks: Sequence[TaskScores], models: Sequence[int]) -> float:
    """The design effect of all answers: several seeds, and tasks that can share groups."""
    of = list(models)
    names = [f"{scores.folder} {name}" for scores in tasks for name in scores.groups]
    member = np.unique(names, return_inverse=True)[1].astype(np.int64)
    gaps = np.concatenate([scores.values["overconfidence"][of] for scores in tasks], axis=1)
    sure = np.concatenate([scores.probabilities[of].max(axis=2) for scores in tasks], axis=1)
    return design_effect(
        gaps.astype(np.float64).ravel(), bins_of(sure).ravel(), np.tile(member, len(of))
    )


def confusion_of(tasks: Sequence[TaskScores], models: Sequence[int]) -> dict[str, list[list[int]]]:
    """Confusion matrices of some models, summed over tasks if all have the same labels."""
    by_task = {scores.task: scores.confusion[list(models)].sum(axis=0) for scores in tasks}
    if len({scores.setting.labels for scores in tasks}) == 1:
        return {ALL: np.sum(list(by_task.values()), axis=0).tolist()}
    return {task: counts.tolist() for task, counts in by_task.items()}


def labels_of(scores: TaskScores, models: Sequence[int]) -> list[Label]:
    """Precision, recall and F1 of each label, counted over some models together."""
    counts = scores.confusion[list(models)].sum(axis=0)
    right, predicted = counts.sum(axis=1), counts.sum(axis=0)
    return [
        Label(
            label=label,
            support=int(right[place]) // len(models),
            precision=_share(counts[place, place], predicted[place]),
            recall=_share(counts[place, place], right[place]),
            f1=_share(2 * counts[place, place], right[place] + predicted[place]),
        )
        for place, label in enumerate(scores.setting.labels)
    ]


def _share(part: float, of: float) -> float | None:
    return float(part / of) if of else None
