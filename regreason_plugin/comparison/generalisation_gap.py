"""Label loss on train rows and on test rows: how far each arm overfits.

Both losses are the metric ``nll`` of the same task with the same prompts. An arm's generalisation
gap, the loss on test rows minus the loss on train rows, therefore comes from the training. Train
and test rows belong to different groups; every seed's model is scored on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from regreason_plugin.comparison.arms import Arms, Models
from regreason_plugin.comparison.comparability import check_comparable, check_same_scoring, tasks_of
from regreason_plugin.comparison.comparison import GeneralisationGap
from regreason_plugin.comparison.crossed_variance import Estimate, mean, undefined, variance_of_gap
from regreason_plugin.comparison.estimates import Estimates, interval_of
from regreason_plugin.comparison.task_scores import TaskScores, read_tasks

LOSS = "nll"


@dataclass(frozen=True)
class TrainScores:
    """The scores of models on train rows.

    Attributes:
        tasks: The scores of each task.
        places: Maps a model's number in the comparison to its index in ``tasks``.
    """

    tasks: list[TaskScores]
    places: dict[int, int]

    def of(self, models: Models) -> Models:
        """The same models, by their indices in ``tasks``."""
        return Models(*(tuple(self.places[number] for number in side) for side in models))

    def have(self, models: Models) -> bool:
        """Whether all of these models were scored on train rows."""
        return all(number in self.places for side in models for number in side)


def read_train_scores(arms: Arms, tasks: Sequence[str]) -> TrainScores | None:
    """Read the scores on train rows of the arms whose models all have them.

    Args:
        arms: The arms of the comparison.
        tasks: The tasks of the comparison; some of them may lack scores on train rows.

    Returns:
        The scores; None if there is no such arm, or no task of the comparison among its train rows.

    Raises:
        UserError: Results on train rows are not comparable with each other or with those on test
            rows, or a model was scored on rows that it was not trained on.
    """
    pairs = {
        number: (run, replace(run.train, name=f"{run.name} on train rows"))
        for name, numbers in arms.numbers.items()
        for number, run in zip(numbers, arms.runs[name], strict=True)
        if run.train is not None and all(one.train for one in arms.runs[name])
    }
    if not pairs:
        return None
    trained = [train for _, train in pairs.values()]
    check_comparable(trained[0], trained[1:])
    both = [task for task in tasks_of(trained[0]) if task in tasks]
    for run, train in pairs.values():
        check_same_scoring(run, train, both)
    places = {number: place for place, number in enumerate(pairs)}
    return TrainScores(read_tasks(trained, both), places) if both else None


def generalisation_gaps(
    arms: Arms, scores: Sequence[TaskScores], train: TrainScores
) -> dict[str, GeneralisationGap]:
    """The losses and the generalisation gap of each arm that was scored on train rows.

    Args:
        arms: The arms of the comparison.
        scores: The scores of all models on test rows.
        train: The scores of some models on train rows.
    """
    both = {one.task for one in train.tasks}
    on_test = Estimates([one for one in scores if one.task in both])
    on_train = Estimates(train.tasks)
    gaps = {}
    for name in arms.runs:
        models = arms.alone(name)
        if not train.have(models):
            continue
        gap = _gap(on_test, on_train, models, train)
        against = None if name == arms.baseline else arms.against(name)
        gaps[name] = GeneralisationGap(
            train=interval_of(on_train.estimate(LOSS, train.of(models))),
            test=interval_of(on_test.estimate(LOSS, models)),
            gap=interval_of(gap),
            difference=interval_of(_gap(on_test, on_train, against, train))
            if against and train.have(against)
            else None,
            train_documents=sum(len(one.ids) for one in on_train.tasks),
            test_documents=sum(len(one.ids) for one in on_test.tasks),
            over=gap.over if gap else None,
        )
    return gaps


def _gap(
    on_test: Estimates, on_train: Estimates, models: Models, train: TrainScores
) -> Estimate | None:
    """The loss on test rows minus that on train rows, of an arm or of a difference of two arms."""
    estimates = (
        on_test.estimate(LOSS, models),
        on_train.estimate(LOSS, train.of(models)),
    )
    values = on_test.by_seed(LOSS, models) - on_train.by_seed(LOSS, train.of(models))
    variances = [one.variance for one in estimates if one is not None]
    if len(variances) < len(estimates):
        return None
    of_test, of_train = variances
    if of_test is None or of_train is None:
        return undefined(float(values.mean()))
    return mean(values, variance_of_gap(values, of_test, of_train))
