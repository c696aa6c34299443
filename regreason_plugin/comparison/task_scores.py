"""The scores of all models in one task: documents are read, paired, summed by group and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.comparison.arms import Models
from regreason_plugin.comparison.calibrated_runs import as_calibrated, calibrated_answers
from regreason_plugin.comparison.comparability import check_same_answers
from regreason_plugin.comparison.comparison import ALL, Agreement, Bin, Label, Setting
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
from regreason_plugin.metrics.metric_names import METRICS, SCORE, Metric

# Below this size in bytes, starting processes takes longer than reading the files.
_MUCH = 64 * 2**20


@dataclass(frozen=True)
class LabelScores:
    """The models' predictions of labels in one task of N documents with K labels.

    Attributes:
        labels: The right labels, counted from 1, ``[N]``.
        probabilities: The probabilities of the labels, ``[models, N, K]``.
        predictions: The predicted labels, ``[models, N]``.
        bins: Sums by bin of confidence, ``[models, bins, (count, confidence, correct)]``.
        ece: The plain expected calibration error, ``[models]``.
        ece_if_calibrated: The expected ECE of a calibrated model with the same confidences,
            ``[models]``.
        chance_variance: The variance of the miscalibration of a calibrated model with the same
            confidences, ``[models]``.
        confusion: Confusion matrices, ``[models, label, prediction]``, counts.
    """

    labels: Integers
    probabilities: NDArray[np.float32] = field(repr=False)
    predictions: NDArray[np.int16] = field(repr=False)
    bins: Array = field(repr=False)
    ece: Array
    ece_if_calibrated: Array
    chance_variance: Array
    confusion: Integers = field(repr=False)


@dataclass(frozen=True)
class TaskScores:
    """The scores of all models in one task of N documents; models are in the order of the runs.

    Attributes:
        task: The name of the task.
        setting: The declaration of the task: labels, dataset, axis.
        folder: The identity of the documents' source: the data folder's sha256, or lm_eval's data
            set. Group names are unique within one source only.
        ids: The ids of the documents, ``[N]``.
        groups: The name of each document's group, ``[N]``.
        sums: Sums by group.
        metrics: The task's metrics by name, in the order of the report.
        statistics: The values of each metric, with the influence of each group.
        entropies: For each model, the members of `ENTROPIES` that its results have, compared or
            not.
        values: For each metric that is a mean, the documents' values, ``[models, N]``.
        proportions: The metrics whose documents' values are all 0 or 1, which get score intervals.
        labelled: The predictions of labels; None for a task without labels.
        calibrated: The same with the probabilities that each model's temperature calibrates; None
            unless every model has one.
        replicates: For each corpus metric, its values on bootstrap samples of the groups,
            ``[models, samples]``.
        logged: Whether the metrics are those that lm_eval logged, for any task; they are then
            compared in this task even if other tasks lack them.
        group_field: The field of the documents by which ``logged`` documents are grouped; None if
            each is its own group.
        lines: Where each ``logged`` document's line begins in each model's samples file, in bytes,
            ``[models, N]``.
        task_groups: The groups of tasks that the ``logged`` task was scored in.
        pooled: Whether the task is part of the mean over the tasks.
        left_out: Metrics of the task that are not compared, each with the reason.
    """

    task: str
    setting: TaskSetting
    folder: str
    ids: list[str]
    groups: list[str]
    sums: Sums
    metrics: dict[str, Metric]
    statistics: dict[str, Statistic] = field(repr=False)
    entropies: list[set[str]]
    values: dict[str, NDArray[np.float32]] = field(repr=False)
    proportions: frozenset[str] = frozenset({"acc"})
    labelled: LabelScores | None = None
    calibrated: LabelScores | None = None
    replicates: dict[str, Array] = field(default_factory=dict, repr=False)
    logged: bool = False
    group_field: str | None = None
    lines: Integers = field(default_factory=lambda: np.zeros((0, 0), np.int64), repr=False)
    task_groups: tuple[str, ...] = ()
    pooled: bool = True
    left_out: dict[str, str] = field(default_factory=dict)


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
    return over_tasks(partial(_score_task, runs, left_out), tasks, files, advance)


def over_tasks(
    read: Callable[[str], TaskScores],
    tasks: Sequence[str],
    files: Iterable[Path],
    advance: Callable[[int], object],
) -> list[TaskScores]:
    """Read tasks, in several processes if the files are large.

    Args:
        read: Reads one task by its name.
        tasks: The names of the tasks.
        files: All files that will be read.
        advance: Called with 1 after each task.
    """
    size = sum(file.stat().st_size for file in files if file.is_file())
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
    sums, statistics, values = sums_of(models), statistics_of(models), _values(models)
    calibrated = calibrated_answers(models, runs)
    if calibrated:
        statistics |= as_calibrated(statistics_of(calibrated))
        values |= as_calibrated(_values(calibrated))
    return TaskScores(
        task=task,
        setting=runs[0].tasks[task].setting,
        folder=runs[0].tasks[task].data["sha256"],
        ids=models[0].ids,
        groups=models[0].groups,
        sums=sums,
        metrics={name: metric for name, metric in METRICS.items() if name in statistics},
        statistics=statistics,
        entropies=entropies,
        values=values,
        labelled=label_scores(models, sums),
        calibrated=label_scores(calibrated, sums) if calibrated else None,
    )


def _values(models: Sequence[Answers]) -> dict[str, NDArray[np.float32]]:
    """For each metric that is a mean, the documents' values, ``[models, N]``."""
    by_model = [document_values(answers) for answers in models]
    return {
        name: np.stack([of[name] for of in by_model]).astype(np.float32) for name in by_model[0]
    }


def label_scores(models: Sequence[Answers], sums: Sums) -> LabelScores:
    """The predictions of several models that answered about the same documents."""
    bins = np.stack([_bins(answers) for answers in models])
    effects = [
        design_effect(one.confidences - one.correct, bins_of(one.confidences), sums.member)
        for one in models
    ]
    return LabelScores(
        labels=models[0].labels,
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


def scores_of(tasks: Iterable[TaskScores]) -> list[list[NDArray[np.float32]]]:
    """For each task, every model's probabilities of the labels, else its values of each metric."""
    return [
        list(
            one.labelled.probabilities if one.labelled else np.stack([*one.values.values()], axis=1)
        )
        for one in tasks
        if one.labelled or one.values
    ]


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
    setting, labelled = scores.setting, scores.labelled
    labels = labelled.confusion[0].sum(axis=1) if labelled and setting.labels else None
    return Setting(
        task=scores.task,
        dataset=setting.dataset,
        axis=setting.axis,
        title=setting.title,
        axis_title=setting.axis_title,
        documents=len(scores.ids),
        groups=len(scores.sums.groups),
        effective_groups=effective_groups,
        majority_acc=None if labels is None else float(labels.max() / labels.sum()),
        labels=[] if labels is None else labels.tolist(),
        label_names=list(setting.labels),
        ordinal=setting.ordinal,
        pooled=scores.pooled,
        metrics=[name for name in scores.metrics if name != SCORE] if scores.logged else [],
        group_field=scores.group_field,
    )


def reliability_of(tasks: Sequence[TaskScores], models: Sequence[int]) -> list[Bin]:
    """The reliability diagram of some models, over all tasks with labels; else no bins."""
    labelled = [(one, one.labelled) for one in tasks if one.labelled]
    if not labelled:
        return []
    sums = np.sum([of.bins[list(models)].sum(axis=0) for _, of in labelled], axis=0)
    low, high = calibrated_band(sums, _design_effect_of(labelled, models))
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


def _design_effect_of(
    tasks: Sequence[tuple[TaskScores, LabelScores]], models: Sequence[int]
) -> float:
    """The design effect of all answers: several seeds, and tasks that can share groups."""
    of = list(models)
    names = [f"{scores.folder} {name}" for scores, _ in tasks for name in scores.groups]
    member = np.unique(names, return_inverse=True)[1].astype(np.int64)
    gaps = np.concatenate([scores.values["overconfidence"][of] for scores, _ in tasks], axis=1)
    sure = np.concatenate([one.probabilities[of].max(axis=2) for _, one in tasks], axis=1)
    return design_effect(
        gaps.astype(np.float64).ravel(), bins_of(sure).ravel(), np.tile(member, len(of))
    )


def confusion_of(tasks: Sequence[TaskScores], models: Sequence[int]) -> dict[str, list[list[int]]]:
    """Confusion matrices of some models, summed over tasks if all have the same labels."""
    by_task = {
        one.task: one.labelled.confusion[list(models)].sum(axis=0)
        for one in tasks
        if one.labelled and one.setting.labels
    }
    if len(by_task) == len(tasks) and len({scores.setting.labels for scores in tasks}) == 1:
        return {ALL: np.sum(list(by_task.values()), axis=0).tolist()}
    return {task: counts.tolist() for task, counts in by_task.items()}


def agreement_of(
    tasks: Sequence[TaskScores], against: Mapping[str, Models]
) -> dict[str, dict[str, Agreement]]:
    """How often the baseline and each arm are right, by arm and task.

    Only tasks whose main metric is right or wrong for each document have these counts.
    """
    by_arm: dict[str, dict[str, Agreement]] = {}
    for arm, models in against.items():
        by_arm[arm] = {}
        for one in tasks:
            main = next(iter(one.metrics), "")
            if main not in one.proportions:
                continue
            right = is_right(one, main)
            ours, base = (right[list(side)] for side in (models.of, models.minus))
            by_arm[arm][one.task] = Agreement(
                both_right=int((ours & base).sum()),
                only_baseline=int((base & ~ours).sum()),
                only_arm=int((ours & ~base).sum()),
                both_wrong=int((~ours & ~base).sum()),
            )
    return by_arm


def is_right(scores: TaskScores, metric: str) -> NDArray[np.bool_]:
    """Whether each model is right, by a metric of which all values are 0 or 1, ``[models, N]``."""
    values = scores.values[metric]
    return values == 0 if scores.metrics[metric].better == "lower" else values > 0


def labels_of(scores: TaskScores, models: Sequence[int]) -> list[Label]:
    """Precision, recall and F1 of each label, counted over some models together."""
    if not scores.labelled or not scores.setting.labels:
        return []
    counts = scores.labelled.confusion[list(models)].sum(axis=0)
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
