"""What each arm took: its trainings, and scoring its models."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, TypeVar

from pydantic import ValidationError

from regreason_plugin.compare.comparison import Cost
from regreason_plugin.core.cost import COST, SCORING, Memory, ScoringCost, TrainingCost, read_cost
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import Run

_Read = TypeVar("_Read", TrainingCost, ScoringCost)


def cost_of(arm: Sequence[Run]) -> Cost:
    """Of an arm, the mean of its models.

    A figure that one of them lacks is None: a mean of the others would be of other seeds.

    Raises:
        UserError: A record of a cost is broken.
    """
    each = [_of_model(run) for run in arm]
    figures = ("training_seconds", "training_tokens", "scoring_ms")
    means = {
        name: _mean([getattr(one, name) for one in each])
        for name in (*figures, "peak_memory_mib", "peak_gpu_mib")
    }
    return Cost(**means, machines=sorted({place for one in each for place in one.machines}))


def _of_model(run: Run) -> Cost:
    # A method of `regreason baselines` keeps its own beside its results.
    places = sorted({task.source.parent.parent for task in run.tasks.values()})
    if place := next((place for place in places if (place / COST).is_file()), None):
        cost = read_cost(place)
        return Cost(
            training_seconds=cost.training_seconds,
            training_tokens=cost.training_tokens,
            scoring_ms=cost.scoring_ms,
            peak_memory_mib=cost.peak_memory_mib,
            peak_gpu_mib=cost.peak_gpu_mib,
            machines=[cost.machine.describe()],
        )
    training = _read(TrainingCost, run.training.get("cost"), run)
    scoring = _read(ScoringCost, run.config.get(SCORING), run)
    known: list[Memory] = [part for part in (training, scoring) if part is not None]
    gpu = [part.peak_gpu_mib for part in known if part.peak_gpu_mib is not None]
    return Cost(
        training_seconds=training.seconds if training else None,
        training_tokens=training.tokens if training else None,
        scoring_ms=1000 * scoring.seconds / scoring.documents
        if scoring and scoring.documents
        else None,
        peak_memory_mib=max((part.peak_memory_mib for part in known), default=None),
        peak_gpu_mib=max(gpu, default=None),
        machines=[part.machine.describe() for part in (training, scoring) if part],
    )


def _read(kind: type[_Read], found: Any, run: Run) -> _Read | None:
    if found is None:
        return None
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        (first, *_) = error.errors()
        field = ".".join(map(str, first["loc"]))
        raise UserError(
            f"has a broken record of what {run.name!r} took ({field}: {first['msg']}); score or "
            "train it again",
            path=run.folder,
        ) from None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
