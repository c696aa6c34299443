"""Scores of every condition, and the comparison of the label-first conditions with the first.

`regreason compare` computes the differences, their intervals and the verdict.
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
# Prefix of a generative twin's metrics for the label forced at once, without an explanation.
FORCED = "forced_"
SCORES = ("acc", "macro_f1", "qwk", "nll", "ece")
# Metrics of the comparison between conditions, as far as the task has them.
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
        half_width: Half the width of its 95 % t interval over seeds, which holds for these test
            documents only; None with fewer than three seeds.
    """

    value: float
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The mean of ``values``, one for each seed."""
        return cls(statistics.fmean(values), half_width(values))


@dataclass(frozen=True)
class Figures:
    """The figures of one condition.

    Attributes:
        condition: The condition.
        runs: Its results, one run for each seed.
        values: By metric, one value for each seed: the mean over the settings.
    """

    condition: Condition
    runs: tuple[Run, ...]
    values: dict[str, list[float]]

    def mean(self, metric: str) -> Mean:
        """The mean of a metric over the seeds."""
        return Mean.of(self.values[metric])


def read_figures(plan: Plan) -> dict[str, Figures]:
    """Read the figures of every condition, by its name."""
    return {condition.name: _read(plan, condition) for condition in plan.study.conditions}


def compare_label_first(plan: Plan, figures: dict[str, Figures]) -> Compared:
    """Compare all label-first conditions with the first condition, the baseline."""
    runs = [
        run for one in figures.values() if one.condition.order == "label_first" for run in one.runs
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
        # All models read the same text only before a forced label, so its probes are compared.
        names = [*SCORES, *(f"{FORCED}{name}" for name in (*SCORES, *ENTROPIES))]
    values = {name: [_over_settings(run, name) for run in runs] for name in names}
    return Figures(condition, runs, values)


def _over_settings(run: Run, metric: str) -> float:
    values = [task.metrics.get(metric) for task in run.tasks.values()]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else math.nan


def half_width(values: Sequence[float]) -> float | None:
    """Half the width of Student's t interval of a mean, at level `LEVEL`.

    Args:
        values: One value for each seed, all on the same test documents. The interval therefore
            holds for these documents only.

    Returns:
        Half the width; None with fewer than three values.
    """
    if len(values) < ENOUGH_SEEDS:
        return None
    from scipy.stats import t

    quantile = float(t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
