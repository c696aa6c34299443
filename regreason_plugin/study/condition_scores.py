"""What the study found: every condition's scores, and the label-first ones held against the first.

Differences, their intervals and the verdict are those of `regreason compare`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from regreason_plugin.comparison.compare import Compared, compare
from regreason_plugin.evaluate.results import Run, read_run
from regreason_plugin.study.plan import Plan
from regreason_plugin.study.study_file import Condition

ENOUGH_SEEDS = 3
LEVEL = 0.95
# (A generative twin's figure of the label forced at once, without an explanation before it.)
FORCED = "forced_"
SCORES = ("acc", "macro_f1", "qwk", "nll", "ece")
# Those of which conditions are held against each other, where the task has them.
COMPARED = ("acc", "macro_f1", "qwk", "nll", "miscalibration")
ENTROPIES = (
    "output_entropy",
    "label_entropy",
    "activation_entropy_mid",
    "activation_entropy_square_mid",
)


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: The mean.
        half_width: Half of its 95 % t interval over seeds, for these test documents only; None
            with fewer than three seeds.
    """

    value: float
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of a value a seed."""
        return cls(statistics.fmean(values), half_width(values))


@dataclass(frozen=True)
class Figures:
    """Of one condition.

    Attributes:
        condition: Which.
        runs: Its results, a run a seed.
        values: By metric, a value a seed: the mean over the settings.
    """

    condition: Condition
    runs: tuple[Run, ...]
    values: dict[str, list[float]]

    def mean(self, metric: str) -> Mean:
        """Of a metric, over seeds."""
        return Mean.of(self.values[metric])


def read_figures(plan: Plan) -> dict[str, Figures]:
    """Every condition's, by its name."""
    return {condition.name: _read(plan, condition) for condition in plan.study.conditions}


def compare_label_first(plan: Plan, figures: dict[str, Figures]) -> Compared:
    """All label-first conditions against the first one."""
    runs = [
        run
        for found in figures.values()
        if found.condition.order == "label_first"
        for run in found.runs
    ]
    return compare(
        runs,
        plan.study.conditions[0].name,
        primary=plan.study.primary,
        margin=plan.study.margin,
        command="regreason study",
    )


def _read(plan: Plan, condition: Condition) -> Figures:
    runs = tuple(
        read_run(condition.name, plan.results(condition, seed)) for seed in plan.study.seeds
    )
    names = [*SCORES, *ENTROPIES]
    if condition.order == "explanation_first":
        # Of the probes, only the forced ones have the same text before them in every model.
        names = [*SCORES, *(f"{FORCED}{name}" for name in (*SCORES, *ENTROPIES))]
    values = {name: [_over_settings(run, name) for run in runs] for name in names}
    return Figures(condition, runs, values)


def _over_settings(run: Run, metric: str) -> float:
    values = [task.metrics.get(metric) for task in run.tasks.values()]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else math.nan


def half_width(values: Sequence[float]) -> float | None:
    """Half of Student's t interval of a mean, at `LEVEL`; None of fewer than three values.

    Args:
        values: One a seed. The test documents are the same, so it holds for these only.
    """
    if len(values) < ENOUGH_SEEDS:
        return None
    from scipy.stats import t

    quantile = float(t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
