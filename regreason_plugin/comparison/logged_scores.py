"""The scores of all models in one task of lm_eval, by the metrics that lm_eval logged."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.comparison.comparability import check_same_ids
from regreason_plugin.comparison.task_scores import TaskScores, label_scores, over_tasks
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.lm_eval_aggregation import Aggregate, aggregation_of, value_of
from regreason_plugin.evaluate.logged_samples import LoggedAnswers, read_logged_answers
from regreason_plugin.evaluate.logged_task import LoggedMetric, LoggedTask
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.samples import samples_file
from regreason_plugin.evaluate.task_setting import LoggedSetting
from regreason_plugin.metrics.answers import Answers, Array
from regreason_plugin.metrics.count_formulas import log_probabilities
from regreason_plugin.metrics.group_sums import Sums, document_values, statistics_of, sums_of
from regreason_plugin.metrics.influence import Statistic, mean_influence
from regreason_plugin.metrics.metric_names import METRICS, SCORE, Metric

# Metrics of the labels that are added to the logged ones if the samples hold the choices' scores;
# the second ones need the same choices in every document.
_LABEL_METRICS = ("acc", "miscalibration", "nll", "overconfidence")
_NAMED_LABEL_METRICS = ("macro_f1", "auroc")
# Bootstrap samples of a corpus metric; of those that take long, as many as lm_eval draws.
_SAMPLES = 1000
_SAMPLES_IF_SLOW = 100
_SLOW = ("bleu", "chrf", "chrf++", "ter")


def read_logged_tasks(
    runs: Sequence[Run],
    partners: Sequence[int],
    tasks: Sequence[str],
    group_by: str | None = None,
    advance: Callable[[int], object] = lambda _: None,
    *,
    with_corpus_metrics: bool = True,
) -> list[TaskScores]:
    """Read and score tasks, in several processes if the files are large.

    Args:
        runs: The models.
        partners: For each model, the index of the model that must have read the same prompts.
        tasks: Names of tasks that all models have.
        group_by: As in `read_logged_answers`.
        advance: Called with 1 after each task.
        with_corpus_metrics: Whether to bootstrap metrics that are no means, which takes long;
            otherwise they have values, but no intervals.

    Returns:
        The scores of each task.

    Raises:
        UserError: Samples are missing or broken, or are not of the same documents and prompts.
    """
    files = [samples_file(run.logged[task]) for run in runs for task in tasks]
    read = partial(_score_task, runs, partners, group_by, with_corpus_metrics)
    return over_tasks(read, tasks, files, advance)


def _score_task(
    runs: Sequence[Run],
    partners: Sequence[int],
    group_by: str | None,
    with_corpus_metrics: bool,
    task: str,
) -> TaskScores:
    results = [run.logged[task] for run in runs]
    models: list[LoggedAnswers] = []
    for run, result in zip(runs, results, strict=True):
        models.append(read_logged_answers(result, group_by))
        _check_same_documents(task, models[0], models[-1], (runs[0].name, run.name))
    for model, partner in enumerate(partners):
        _check_same_prompts(runs, models, task, partner, model)
    first, metrics = models[0], _compared_metrics(results)
    answers = [_answers(result, one) for result, one in zip(results, models, strict=True)]
    sums = sums_of([_without_labels(results[0], first)])
    names = first.choices.names if first.choices else ()
    of_labels, labelled = _label_metrics(answers, sums, bool(names))
    values = {
        key: np.stack([one.values[key] for one in models])
        for key in metrics
        if all(key in one.values for one in models)
    }
    statistics = {key: _mean_statistic(of, sums) for key, of in values.items()}
    replicates, left_out = {}, {}
    for key, metric in metrics.items():
        if key in values:
            continue
        if not with_corpus_metrics:
            logged = np.array([result.metrics[key].value for result in results])
            statistics[key] = _without_groups(logged, sums)
            continue
        known = _bootstrap(key, results, models, sums)
        if known is None:
            left_out[key] = (
                f"in {task}, the function that computes it"
                f"{f' ({metric.aggregation})' if metric.aggregation else ''} is not one that "
                "lm_eval has here"
            )
            continue
        statistics[key], replicates[key] = known
    described = {
        key: Metric(key, metric.better) for key, metric in metrics.items() if key in statistics
    }
    for name, (statistic, of_documents) in of_labels.items():
        if name not in described:
            described[name], statistics[name] = METRICS[name], statistic
            if of_documents is not None:
                values[name] = of_documents
    return TaskScores(
        task=task,
        setting=LoggedSetting(
            setting=(results[0].group, task),
            title=results[0].group,
            axis_title=task,
            labels=names if labelled else (),
            ordinal=False,
            place=None,
        ),
        folder=results[0].dataset,
        ids=[str(one) for one in first.ids],
        groups=first.groups,
        sums=sums,
        metrics=described,
        statistics=statistics,
        entropies=[set() for _ in runs],
        values={key: of.astype(np.float32) for key, of in values.items()},
        proportions=frozenset(key for key, of in values.items() if np.isin(of, (0, 1)).all()),
        labelled=labelled,
        replicates=replicates,
        logged=True,
        group_field=first.group_field,
        lines=np.stack([one.lines for one in models]),
        task_groups=results[0].groups,
        left_out=left_out,
    )


# --- documents and prompts ------------------------------------------------------------------


def _check_same_documents(
    task: str, base: LoggedAnswers, other: LoggedAnswers, names: tuple[str, str]
) -> None:
    ids = [dict(zip(one.keys, one.ids, strict=True)) for one in (base, other)]
    check_same_ids(
        task,
        [f"document {ids[0][key]}" for key in base.keys if key not in ids[1]],
        [f"document {ids[1][key]}" for key in other.keys if key not in ids[0]],
        names,
        other.source,
    )


def _check_same_prompts(
    runs: Sequence[Run], models: Sequence[LoggedAnswers], task: str, base: int, other: int
) -> None:
    ours, theirs = models[base], models[other]
    different = [
        document
        for document, one, two in zip(ours.ids, ours.prompts, theirs.prompts, strict=True)
        if one != two
    ]
    if not different:
        return
    seeds = [runs[model].logged[task].fewshot_seed for model in (base, other)]
    because = f"; their few-shot seeds are {seeds[0]} and {seeds[1]}" * (seeds[0] != seeds[1])
    raise UserError(
        f"{task} of {runs[other].name!r} and of {runs[base].name!r} have other prompts for "
        f"{len(different)} of {len(ours.ids)} documents, the first document {different[0]}"
        f"{because}; score both with the same prompts",
        path=theirs.source,
    )


# --- metrics --------------------------------------------------------------------------------


def _compared_metrics(results: Sequence[LoggedTask]) -> dict[str, LoggedMetric]:
    """The metrics that all models have, in the order of the first model's results."""
    shared = [key for key in results[0].metrics if all(key in one.metrics for one in results)]
    return {key: results[0].metrics[key] for key in shared}


def _mean_statistic(values: Array, sums: Sums) -> Statistic:
    """The means over the documents for which all models have a value."""
    known = np.isfinite(values).all(axis=0)
    groups = len(sums.groups)
    totals = [np.bincount(sums.member, np.where(known, of, 0), groups) for of in values]
    return mean_influence(
        np.array(totals), np.bincount(sums.member, known, groups).astype(np.float64)
    )


def _bootstrap(
    key: str, results: Sequence[LoggedTask], models: Sequence[LoggedAnswers], sums: Sums
) -> tuple[Statistic, Array] | None:
    """A corpus metric of all models, by lm_eval's own function, on bootstrap samples of the groups.

    All models have the same samples, so their differences are paired.

    Returns:
        The values, and the values on the samples ``[models, samples]``; None if lm_eval does not
        have the function here.
    """
    functions: list[Aggregate] = []
    for result, one in zip(results, models, strict=True):
        function = aggregation_of(result.metrics[key], one.items[key]) if key in one.items else None
        if function is None:
            return None
        functions.append(function)
    samples = _SAMPLES_IF_SLOW if results[0].metrics[key].name in _SLOW else _SAMPLES
    # The seed depends on nothing but the task and the metric, so every report is the same.
    random = np.random.default_rng(zlib.crc32(f"{results[0].task} {key}".encode()))
    groups = len(sums.groups)
    order = np.argsort(sums.member, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(sums.member, minlength=groups))[:-1])
    replicates = np.empty((len(models), samples))
    for sample in range(samples):
        drawn = np.concatenate([members[group] for group in random.integers(0, groups, groups)])
        for model, (function, one) in enumerate(zip(functions, models, strict=True)):
            replicates[model, sample] = _value(function, [one.items[key][at] for at in drawn])
    values = np.array([result.metrics[key].value for result in results])
    return _without_groups(values, sums), replicates


def _without_groups(values: Array, sums: Sums) -> Statistic:
    """A corpus metric of all models, to which single groups make no contribution."""
    return Statistic(values, np.zeros((len(values), len(sums.groups))))


def _value(function: Aggregate, items: list[Any]) -> float:
    """The metric of a sample; NaN if it is undefined there."""
    try:
        return value_of(function, items)
    except (ArithmeticError, ValueError):
        return float("nan")


# --- labels ---------------------------------------------------------------------------------


def _without_labels(result: LoggedTask, one: LoggedAnswers) -> Answers:
    """The documents and their groups, without any answer."""
    count = len(one.keys)
    return Answers(
        task=result.task,
        source=one.source,
        ids=one.keys,
        hashes=one.keys,
        groups=one.groups,
        labels=np.ones(count, dtype=np.int64),
        log_probabilities=np.zeros((count, 1)),
        probes={},
        layers={},
        ordinal=False,
    )


def _answers(result: LoggedTask, one: LoggedAnswers) -> Answers | None:
    """The scores of the choices as answers; None if lm_eval's accuracy is not theirs."""
    if one.choices is None:
        return None
    answers = replace(
        _without_labels(result, one),
        labels=one.choices.right + 1,
        log_probabilities=log_probabilities(one.choices.scores),
    )
    if "acc" in one.values and not np.array_equal(one.values["acc"], answers.correct):
        return None
    return answers


_LabelMetrics = dict[str, tuple[Statistic, NDArray[np.float64] | None]]


def _label_metrics(
    answers: Sequence[Answers | None], sums: Sums, named: bool
) -> tuple[_LabelMetrics, Any]:
    """The metrics of labels: for each its statistic and, for a mean, the documents' values.

    Args:
        answers: Each model's answers.
        sums: The groups.
        named: Whether all documents have the same choices.
    """
    known = [one for one in answers if one is not None]
    if len(known) < len(answers) or len({one.count for one in known}) > 1:
        return {}, None
    statistics = statistics_of(known)
    by_model = [document_values(one) for one in known]
    metrics: _LabelMetrics = {}
    for name in (*_LABEL_METRICS, *(_NAMED_LABEL_METRICS if named else ())):
        if name in statistics:
            mean = name in by_model[0]
            of = np.stack([values[name] for values in by_model]) if mean else None
            metrics[name] = statistics[name], of
    return metrics, label_scores(known, sums)


# --- the metric over all tasks ----------------------------------------------------------------


def with_common_metric(scores: list[TaskScores]) -> list[TaskScores]:
    """Give the tasks a metric of which the mean over the tasks makes sense.

    If the tasks' first metrics have different names, the metric `SCORE` is the first metric of each
    task.

    Raises:
        UserError: The tasks' first metrics cannot be averaged.
    """
    firsts = [next(iter(one.metrics), None) for one in scores]
    pooled = [
        first is not None and is_share(one, first)
        for one, first in zip(scores, firsts, strict=True)
    ]
    alike = len({*firsts}) == 1 and firsts[0] is not None
    if not any(pooled) and alike:
        return scores
    if not any(pooled):
        named = ", ".join(
            f"{one.task}: {first or 'none'}" for one, first in zip(scores, firsts, strict=True)
        )
        raise UserError(
            f"the tasks' first metrics cannot be averaged ({named}); compare one task at a time, "
            "with --tasks"
        )
    shared = {first for first, part in zip(firsts, pooled, strict=True) if part}
    return [
        replace(one if len(shared) == 1 or not part else with_score(one), pooled=part)
        for one, part in zip(scores, pooled, strict=True)
    ]


def is_share(one: TaskScores, metric: str) -> bool:
    """Whether a metric is a mean of values from 0 to 1, of which higher ones are better."""
    if metric not in one.values or one.metrics[metric].better == "lower":
        return False
    values = one.values[metric]
    return bool(((values >= 0) & (values <= 1) | np.isnan(values)).all())


def with_score(one: TaskScores) -> TaskScores:
    """The task with its first metric under the name `SCORE`, if that is a mean over documents."""
    first = next(iter(one.metrics), SCORE)
    if first == SCORE or first not in one.values:
        return one
    return replace(
        one,
        metrics={SCORE: Metric(SCORE, one.metrics[first].better), **one.metrics},
        statistics={**one.statistics, SCORE: one.statistics[first]},
        values={**one.values, SCORE: one.values[first]},
        proportions=one.proportions | ({SCORE} if first in one.proportions else set()),
    )
