"""Compare several arms with a baseline: every figure of a `Comparison`, from result folders."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from regreason_plugin.comparison import comparison as form
from regreason_plugin.comparison.arms import Arms
from regreason_plugin.comparison.calibrated_runs import temperature_of, with_calibrations
from regreason_plugin.comparison.comparability import (
    ENTROPIES,
    check_comparable,
    check_same_training_rows,
    data_of,
    incomparable_entropies,
    is_generative,
    tasks_of,
)
from regreason_plugin.comparison.costs import cost_of
from regreason_plugin.comparison.differences import (
    detectable_of,
    differences,
    gaps,
    needed_for,
    wins,
)
from regreason_plugin.comparison.disagreements import Disagreement, choose
from regreason_plugin.comparison.estimates import Estimates
from regreason_plugin.comparison.generalisation_gap import (
    TrainScores,
    generalisation_gaps,
    read_train_scores,
)
from regreason_plugin.comparison.learning_curves import curves_of
from regreason_plugin.comparison.logged_comparability import check_logged_comparable
from regreason_plugin.comparison.logged_scores import read_logged_tasks, with_common_metric
from regreason_plugin.comparison.notes import notes_of
from regreason_plugin.comparison.task_groups import task_groups_of
from regreason_plugin.comparison.task_scores import (
    TaskScores,
    agreement_of,
    confusion_of,
    labels_of,
    read_tasks,
    reliability_of,
    scores_of,
    setting_of,
)
from regreason_plugin.comparison.verdict import answers
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.version import __version__
from regreason_plugin.evaluate.results import Run, model_arguments
from regreason_plugin.evaluate.scoring_notes import scoring_notes
from regreason_plugin.evaluate.task_setting import in_paper
from regreason_plugin.metrics.metric_names import (
    CALIBRATED_METRICS,
    LAYERS,
    METRICS,
    REPORTED_METRICS,
)

# The arm whose gain over the baseline counts as 1; other arms keep a fraction of that gain.
WHOLE_GAIN = "explanation"
# The default equivalence margin: one point of accuracy rarely matters in practice.
MARGIN = 0.01
_LIBRARIES = ("numpy", "scipy", "statsmodels", "scikit-learn")


@dataclass(frozen=True)
class Compared:
    """A comparison and documents about which its arms disagree.

    Attributes:
        comparison: Every figure.
        disagreements: Documents for which the arms predict different labels; at most
            `disagreements.MOST` of them.
        disagreeing: The number of all such documents.
    """

    comparison: form.Comparison
    disagreements: list[Disagreement]
    disagreeing: int


def compare(
    runs: Sequence[Run],
    baseline: str,
    *,
    primary: str | None = None,
    margin: float = MARGIN,
    difference: float = 0.02,
    command: str = "",
    group_by: str | None = None,
    calibrated: bool = False,
    advance: Callable[[int], object] = lambda _: None,
) -> Compared:
    """Compare every arm with the baseline, paired by document.

    Args:
        runs: One run per model. Runs with the same name are the seeds of one arm; two names or
            more are needed.
        baseline: The name of the baseline arm.
        primary: The primary question, ``ARM`` or ``ARM:METRIC``: the one difference that is tested
            without a correction. By default the accuracy of `WHOLE_GAIN`, or of the only arm
            besides the baseline; on any tasks of lm_eval, their main metric.
        margin: The equivalence margin: differences from -margin to +margin count as the same. In
            the unit of the primary metric.
        difference: A difference in pooled accuracy; the comparison says how many groups of
            documents, or seeds, finding it would take.
        command: The command as typed, kept as a record.
        group_by: As in `read_logged_answers`, for results on any tasks of lm_eval.
        calibrated: Also report the metrics of the probabilities that each model's own temperature
            calibrates (`CALIBRATED_METRICS`); they change no test.
        advance: Called with 1 after each setting.

    Raises:
        UserError: The runs have no samples, or were not scored on the same documents in the same
            way; or, with ``calibrated``, a model has no calibration that fits.
    """
    if calibrated:
        runs = with_calibrations(runs)
    # Group the models into arms, and check that their results may be compared.
    arms = Arms.of(runs, baseline)
    logged = bool(arms.models[0].logged)
    question = None if logged else primary_question(arms, primary)
    scores, incomparable = read_scores(arms, group_by, advance)
    comparison = conclude(
        arms,
        scores,
        primary_question(arms, primary, scores) if logged else question,
        train=None if logged else read_train_scores(arms, [one.task for one in scores]),
        margin=margin,
        difference=difference,
        command=command,
        incomparable=incomparable,
    )
    return Compared(comparison, *choose(scores, arms.models, arms.numbers))


def read_scores(
    arms: Arms,
    group_by: str | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[list[TaskScores], Mapping[str, str]]:
    """Check that the models' results may be compared, and read their predictions.

    Args:
        arms: The arms and their models.
        group_by: As in `compare`.
        advance: As in `compare`.

    Returns:
        The scores of each task; and the entropies that are not compared, each with the reason.

    Raises:
        UserError: As in `compare`.
    """
    first = arms.models[0]
    if first.logged:
        tasks = check_logged_comparable(arms)
        scores = read_logged_tasks(arms.models, arms.partners, tasks, group_by, advance)
        return with_common_metric(scores), {}
    tasks = tasks_of(first)
    check_comparable(first, arms.models[1:])
    check_same_training_rows(arms.models)
    incomparable = incomparable_entropies(arms.models, tasks)
    return read_tasks(arms.models, tasks, frozenset(incomparable), advance), incomparable


def conclude(
    arms: Arms,
    scores: Sequence[TaskScores],
    question: tuple[str, str] | None,
    *,
    margin: float = MARGIN,
    difference: float = 0.02,
    command: str = "",
    incomparable: Mapping[str, str] = MappingProxyType({}),
    train: TrainScores | None = None,
) -> form.Comparison:
    """Compute every figure, test and sentence from the models' predictions.

    Args:
        arms: The arms and their models.
        scores: The predictions of all models, one entry per task.
        question: Arm and metric of the primary question; None without one.
        margin: As in `compare`.
        difference: As in `compare`.
        command: As in `compare`.
        incomparable: Entropies that are not compared, each with the reason.
        train: The scores on train rows of the models that have them.

    Raises:
        UserError: Not every task has the primary question's metric.
    """
    first, tasks = arms.models[0], [one.task for one in scores]
    alone = {name: arms.alone(name) for name in arms.runs}
    against = {name: arms.against(name) for name in arms.others}
    estimates = Estimates(scores)
    if question and question[1] not in estimates.metrics:
        raise UserError(
            f"--primary: not every task has the metric {question[1]!r}; name one that all tasks "
            f"have: {', '.join(estimates.metrics)}"
        )
    tested = differences(estimates, arms, question, margin)
    # Differences other than the primary one that readers ask for are those of the accuracy.
    logged = scores[0].logged
    usual = estimates.metrics[0] if logged else "acc"
    metric = question[1] if question else usual
    whole = WHOLE_GAIN if WHOLE_GAIN in arms.others and not logged else None
    by_arm = {
        name: dict(zip(tasks, by_task, strict=True)) for name, by_task in tested.by_setting.items()
    }
    comparison = form.rounded(
        form.Comparison(
            regreason=__version__,
            versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
            command=command,
            data={} if logged else data_of(first.tasks[task] for task in tasks),
            protocol=_protocol(first),
            baseline=arms.baseline,
            arms=arms.others,
            seeds=arms.seeds,
            level=form.LEVEL,
            power=form.POWER,
            primary=tested.primary,
            usual=usual,
            logged_metrics=_logged_metrics(scores),
            margin=margin,
            family=tested.family,
            effective_groups=estimates.weights.effective_groups,
            metrics=estimates.metrics,
            left_out=_left_out(scores, estimates.metrics, incomparable),
            settings=[
                setting_of(one, estimates.weights_of(at).effective_groups)
                for at, one in enumerate(scores)
            ],
            settings_in_paper=in_paper(one.setting for one in scores),
            scores={
                name: {task: estimates.scores(models, at) for at, task in enumerate(tasks)}
                for name, models in alone.items()
            },
            differences=by_arm,
            pooled_scores={name: estimates.scores(models) for name, models in alone.items()},
            pooled=tested.pooled,
            contrasts=tested.contrasts,
            detectable={
                name: detectable_of(estimates, models, metric) for name, models in against.items()
            },
            wins={
                name: wins(of[usual] for of in by_arm[name].values() if usual in of)
                for name in arms.others
            },
            needed={
                name: needed_for(estimates, against[name], usual, difference)
                for name in arms.others
            },
            gap_of=whole,
            gap=gaps(estimates, arms, whole) if whole else {},
            generalisation=generalisation_gaps(arms, scores, train) if train else {},
            layers=_layers(estimates, arms),
            reliability={name: reliability_of(scores, models.of) for name, models in alone.items()},
            confusion={name: confusion_of(scores, models.of) for name, models in alone.items()},
            classes={
                name: {one.task: labels_of(one, models.of) for one in scores}
                for name, models in alone.items()
            },
            task_groups=task_groups_of(scores, arms, metric),
            agreement=agreement_of(scores, against),
            curves={name: curves_of(arm) for name, arm in arms.runs.items()},
            costs={name: cost_of(arm) for name, arm in arms.runs.items()},
            answers=[],
            notes=[],
            runs=[_record(name, run, tasks) for name, arm in arms.runs.items() for run in arm],
        )
    )
    # The notes and answers are worded from the figures.
    notes = [
        *notes_of(comparison, arms),
        *(note for run in arms.models for note in run.misfit_notes),
        *scoring_notes(arms.models, scores_of(scores)),
    ]
    conclusion = {"notes": notes, "answers": answers(comparison)}
    return comparison.model_copy(update=conclusion)


def _protocol(run: Run) -> Literal["label_first", "explanation_first", "logged"]:
    if run.logged:
        return "logged"
    return "explanation_first" if is_generative(run) else "label_first"


def _logged_metrics(scores: Sequence[TaskScores]) -> dict[str, form.MetricOf]:
    return {
        name: form.MetricOf(title=metric.title, better=metric.better)
        for one in scores
        if one.logged
        for name, metric in one.metrics.items()
    }


def primary_question(
    arms: Arms, primary: str | None, scores: Sequence[TaskScores] = ()
) -> tuple[str, str] | None:
    """The arm and the metric of the primary question.

    Args:
        arms: The arms.
        primary: As in `compare`.
        scores: The scores on any tasks of lm_eval, whose metrics are known only from the results;
            empty for our tasks.

    Returns:
        None if several arms qualify and none is named.

    Raises:
        UserError: There is no such arm, or no such metric.
    """
    tested = [name for name in METRICS if name not in (*REPORTED_METRICS, *CALIBRATED_METRICS)]
    usual = "acc"
    if logged := [one for one in scores if one.pooled and one.logged]:
        tested = [name for name in logged[0].metrics if all(name in o.metrics for o in logged)]
        usual = tested[0]
    if primary is None:
        if WHOLE_GAIN in arms.others:
            return WHOLE_GAIN, usual
        return (arms.others[0], usual) if len(arms.others) == 1 else None
    arm, metric = primary, usual
    if arm not in arms.runs and ":" in primary:
        arm, _, metric = primary.rpartition(":")
    if arm not in arms.others:
        why = "is the baseline" if arm == arms.baseline else "is not an arm"
        raise UserError(f"--primary: {arm!r} {why}; name one of {', '.join(arms.others)}")
    if metric not in tested:
        raise UserError(
            f"--primary: there is no metric {metric!r} to test; name one of {', '.join(tested)}"
        )
    return arm, metric


def _layers(estimates: Estimates, arms: Arms) -> dict[str, dict[str, list[form.Interval]]]:
    prefix = estimates.tasks[0].sums.probes_prefix
    by_name = {
        prefix + name.removesuffix("_by_layer"): {
            arm: estimates.layers(name, arms.alone(arm)) for arm in arms.runs
        }
        for name in LAYERS
    }
    return {name: by_arm for name, by_arm in by_name.items() if all(by_arm.values())}


def _left_out(
    scores: Sequence[TaskScores], metrics: Sequence[str], incomparable: Mapping[str, str]
) -> dict[str, str]:
    """Metrics and entropies that some models have but that are not compared, with the reason."""
    prefix = scores[0].sums.probes_prefix
    models = [model for one in scores for model in one.entropies]
    left_out = {}
    for name in ENTROPIES:
        if not any(name in model for model in models):
            continue
        if prefix:
            left_out[name] = (
                "each model reads its own explanation before it decides, so the models do not read "
                "the same tokens"
            )
        if not all(name in model for model in models):
            left_out[prefix + name] = "not every model has it in every task"
        elif name in incomparable:
            left_out[prefix + name] = incomparable[name]
    for name in METRICS:
        if name not in metrics and any(name in one.statistics for one in scores if not one.logged):
            left_out.setdefault(name.removesuffix("_mid"), "not every task has it")
    return left_out | {
        f"{name} of {one.task}": reason for one in scores for name, reason in one.left_out.items()
    }


def _record(name: str, run: Run, tasks: list[str]) -> form.RunRecord:
    arguments = ",".join(f"{key}={value}" for key, value in model_arguments(run.config).items())
    keys = ("limit", "batch_size", "gen_kwargs", *(k for k in run.config if k.endswith("_seed")))
    return form.RunRecord(
        arm=name,
        seed=run.seed if isinstance(run.seed, int) else None,
        model=run.model,
        model_args=arguments or str(run.config.get("model_args") or ""),
        results=sorted({(run.logged or run.tasks)[task].source.name for task in tasks}),
        environment=run.environment,
        evaluation={key: run.config.get(key) for key in keys},
        training=run.training,
        temperature=temperature_of(run),
    )
