"""Several arms against one: every figure of a `Comparison`, from the folders of results."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regreason_plugin.compare import comparison as form
from regreason_plugin.compare.arms import Arms
from regreason_plugin.compare.comparability import (
    ENTROPIES,
    check_comparable,
    check_same_training_data,
    data_of,
    incomparable_entropies,
    is_generative,
    tasks_of,
)
from regreason_plugin.compare.costs import cost_of
from regreason_plugin.compare.differences import differences, gaps, needed_for, wins
from regreason_plugin.compare.disagreements import Disagreement, choose
from regreason_plugin.compare.estimates import BOOTSTRAP_SEED, DRAWS, Estimates
from regreason_plugin.compare.learning_curves import curves_of
from regreason_plugin.compare.notes import notes_of
from regreason_plugin.compare.task_scores import (
    TaskScores,
    confusion_of,
    labels_of,
    read_tasks,
    reliability_of,
    setting_of,
)
from regreason_plugin.compare.verdict import answers
from regreason_plugin.core.version import __version__
from regreason_plugin.evaluate.results import Run, model_arguments
from regreason_plugin.evaluate.scoring_notes import scoring_notes
from regreason_plugin.evaluate.task_setting import in_paper
from regreason_plugin.metrics.metric_names import LAYERS, METRICS

# What the others are a part of.
WHOLE_GAIN = "explanation"
_LIBRARIES = ("numpy", "scipy", "statsmodels", "scikit-learn")


@dataclass(frozen=True)
class Compared:
    """A comparison and the single documents behind it.

    Attributes:
        comparison: Every figure.
        disagreements: Some of the documents about which arms disagree.
        disagreeing: How many there are in all.
    """

    comparison: form.Comparison
    disagreements: list[Disagreement]
    disagreeing: int


def compare(
    runs: Sequence[Run],
    baseline: str,
    *,
    difference: float = 0.02,
    draws: int = DRAWS,
    command: str = "",
    advance: Callable[[int], object] = lambda _: None,
) -> Compared:
    """Hold every arm against the baseline, document by document.

    Args:
        runs: A run a model; those of one name are the seeds of an arm. Two names or more.
        baseline: The name of the one to compare with.
        difference: In pooled accuracy, whose price in documents and seeds is told.
        draws: Of the bootstrap, for arms of few seeds.
        command: What was typed, for the record.
        advance: Told how many settings are done.

    Raises:
        UserError: The runs have no samples, or were not made on the same documents in the same
            way.
    """
    # Which models, and whether they are comparable.
    arms = Arms.of(runs, baseline)
    first = arms.models[0]
    tasks = tasks_of(first)
    check_comparable(first, arms.models[1:])
    check_same_training_data(arms.models)
    incomparable = incomparable_entropies(arms.models, tasks)
    # What they answered, the estimates and the tests.
    scores = read_tasks(arms.models, tasks, frozenset(incomparable), advance)
    alone = {name: arms.alone(name) for name in arms.runs}
    against = {name: arms.against(name) for name in arms.others}
    estimates = Estimates(scores, [*alone.values(), *against.values()], draws)
    by_setting = differences(estimates, arms, range(len(tasks)))
    pooled = differences(estimates, arms, [None])
    by_arm = {
        name: {task: by_setting[name, at] for at, task in enumerate(tasks)} for name in arms.others
    }
    comparison = form.rounded(
        form.Comparison(
            regreason=__version__,
            versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
            command=command,
            data=data_of(first.tasks[task] for task in tasks),
            protocol="explanation_first" if is_generative(first) else "label_first",
            baseline=baseline,
            arms=arms.others,
            seeds=arms.seeds,
            level=form.LEVEL,
            power=form.POWER,
            draws=draws,
            bootstrap_seed=BOOTSTRAP_SEED,
            metrics=estimates.metrics,
            left_out=_left_out(scores, estimates.metrics, incomparable),
            settings=[setting_of(one) for one in scores],
            settings_in_paper=in_paper(one.setting for one in scores),
            scores={
                name: {task: estimates.scores(models, at) for at, task in enumerate(tasks)}
                for name, models in alone.items()
            },
            differences=by_arm,
            pooled_scores={name: estimates.scores(models) for name, models in alone.items()},
            pooled={name: pooled[name, None] for name in arms.others},
            wins={name: wins(of["acc"] for of in by_arm[name].values()) for name in arms.others},
            needed={name: needed_for(estimates, against[name], difference) for name in arms.others},
            gap_of=WHOLE_GAIN if WHOLE_GAIN in arms.others else None,
            gap=gaps(estimates, arms, WHOLE_GAIN) if WHOLE_GAIN in arms.others else {},
            layers=_layers(estimates, arms),
            reliability={name: reliability_of(scores, models.of) for name, models in alone.items()},
            confusion={name: confusion_of(scores, models.of) for name, models in alone.items()},
            classes={
                name: {one.task: labels_of(one, models.of) for one in scores}
                for name, models in alone.items()
            },
            curves={name: curves_of(arm) for name, arm in arms.runs.items()},
            costs={name: cost_of(arm) for name, arm in arms.runs.items()},
            answers=[],
            notes=[],
            runs=[_record(name, run, tasks) for name, arm in arms.runs.items() for run in arm],
        )
    )
    # What follows from the numbers.
    notes = [
        *notes_of(comparison, arms),
        *(note for run in arms.models for note in run.misfit_notes),
        *scoring_notes(arms.models, [list(one.probabilities) for one in scores]),
    ]
    conclusion = {"notes": notes, "answers": answers(comparison)}
    return Compared(comparison.model_copy(update=conclusion), *choose(scores, first, arms.numbers))


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
    scores: Sequence[TaskScores], metrics: Sequence[str], incomparable: dict[str, str]
) -> dict[str, str]:
    """Metrics and entropies that some of the models have and that are not compared, and why."""
    prefix = scores[0].sums.probes_prefix
    models = [model for one in scores for model in one.entropies]
    left_out = {}
    for name in ENTROPIES:
        if not any(name in model for model in models):
            continue
        if prefix:
            left_out[name] = (
                "each model reads an explanation of its own before it decides, so they do not read "
                "the same tokens"
            )
        if not all(name in model for model in models):
            left_out[prefix + name] = "not every model has it in every task"
        elif name in incomparable:
            left_out[prefix + name] = incomparable[name]
    for name in METRICS:
        if name not in metrics and any(name in one.statistics for one in scores):
            left_out.setdefault(name.removesuffix("_mid"), "not every task has it")
    return left_out


def _record(name: str, run: Run, tasks: list[str]) -> form.RunRecord:
    arguments = ",".join(f"{key}={value}" for key, value in model_arguments(run.config).items())
    kept = ("limit", "batch_size", "gen_kwargs", *(k for k in run.config if k.endswith("_seed")))
    return form.RunRecord(
        arm=name,
        seed=run.seed if isinstance(run.seed, int) else None,
        model=run.model,
        model_args=arguments or str(run.config.get("model_args") or ""),
        results=sorted({run.tasks[task].source.name for task in tasks}),
        environment=run.environment,
        evaluation={key: run.config.get(key) for key in kept},
        training=run.training,
    )
