"""The cost of each arm: training its models and scoring them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, TypeVar

from pydantic import ValidationError

from regreason_plugin.comparison.comparison import Cost
from regreason_plugin.core.cost import COST, SCORING, ScoringCost, TrainingCost, read_cost
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import Run

_Read = TypeVar("_Read", TrainingCost, ScoringCost)


# The numeric fields of a `Cost`.
_FIGURES = (
    *("training_seconds", "training_tokens", "scoring_ms"),
    *("peak_memory_mib", "peak_gpu_mib"),
)


def cost_of(arm: Sequence[Run]) -> Cost:
    """The mean cost of an arm's models.

    A figure is None if one of the models lacks it: a mean over the other models would be of
    different seeds.

    Raises:
        UserError: A cost record is broken.
    """
    each = [_of_model(run) for run in arm]
    by_figure = {name: [getattr(one, name) for one in each] for name in _FIGURES}
    means = {name: None if None in values else fmean(values) for name, values in by_figure.items()}
    return Cost(**means, machines=sorted({machine for one in each for machine in one.machines}))


def _of_model(run: Run) -> Cost:
    # `regreason baselines` writes a method's cost next to its results.
    folders = sorted({task.source.parent.parent for task in run.tasks.values()})
    if folder := next((folder for folder in folders if (folder / COST).is_file()), None):
        cost = read_cost(folder)
        figures = cost.model_dump(include={*_FIGURES})
        return Cost(**figures, machines=[cost.machine.describe()])
    training = _read(TrainingCost, run.training.get("cost"), run)
    scoring = _read(ScoringCost, run.config.get(SCORING), run)
    known = [part for part in (training, scoring) if part is not None]
    gpu = [part.peak_gpu_mib for part in known if part.peak_gpu_mib is not None]
    return Cost(
        training_seconds=training.seconds if training else None,
        training_tokens=training.tokens if training else None,
        scoring_ms=1000 * scoring.seconds / scoring.documents
        if scoring and scoring.documents
        else None,
        peak_memory_mib=max((part.peak_memory_mib for part in known), default=None),
        peak_gpu_mib=max(gpu, default=None),
        machines=[part.machine.describe() for part in known],
    )


def _read(kind: type[_Read], record: Any, run: Run) -> _Read | None:
    if record is None:
        return None
    try:
        return kind.model_validate(record)
    except ValidationError as error:
        (first, *_) = error.errors()
        field = ".".join(map(str, first["loc"]))
        raise UserError(
            f"has a broken cost record of {run.name!r} ({field}: {first['msg']}); score or train "
            "it again",
            path=run.folder,
        ) from None
