"""How many documents and runs it takes to find a difference, planned from results that exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regreason_plugin.comparison.arms import Arms
from regreason_plugin.comparison.comparison import Detectable
from regreason_plugin.comparison.crossed_variance import ENOUGH_SEEDS
from regreason_plugin.comparison.detectable import needed_groups
from regreason_plugin.comparison.differences import detectable_of
from regreason_plugin.comparison.estimates import Estimates
from regreason_plugin.comparison.task_scores import TaskScores

# The numbers of runs an arm that a plan lists beside the present one.
_RUNS = (3, 5, 10, 20)


@dataclass(frozen=True)
class Plan:
    """A number of runs of each arm, and the documents that find the difference with them.

    Attributes:
        runs: The number of runs of each arm.
        groups: The number of groups of documents; None if no number is enough.
        documents: The number of documents, for groups as large as the present ones.
    """

    runs: int
    groups: int | None
    documents: int | None


@dataclass(frozen=True)
class SampleSize:
    """The sample sizes that find a difference between an arm and the baseline.

    Attributes:
        arm: The arm.
        runs: The number of pairs of runs in these results.
        groups: The number of groups of documents in these results.
        documents: The number of documents in these results.
        detectable: The smallest difference that these results detect.
        plans: What another comparison needs, by its number of runs. With fewer than three runs in
            these results, only the plan for the present runs, which is about these models only.
    """

    arm: str
    runs: int
    groups: int
    documents: int
    detectable: Detectable
    plans: list[Plan]


def sample_sizes(
    arms: Arms, scores: Sequence[TaskScores], metric: str, difference: float
) -> list[SampleSize]:
    """The sample sizes that find a pooled difference in a metric with a probability of 0.8.

    New runs and documents are assumed to vary as the present ones do. The test is a single one at
    0.05, as for a primary question.

    Args:
        arms: The arms and their models.
        scores: The scores of each task.
        metric: The metric, which all pooled tasks have.
        difference: The difference to find.
    """
    estimates = Estimates(scores)
    documents = sum(len(one.ids) for one in scores if one.pooled)
    groups = len({(one.folder, name) for one in scores if one.pooled for name in one.groups})
    sizes = []
    for name in arms.others:
        models = arms.against(name)
        estimate, now = estimates.estimate(metric, models), len(models.of)
        several = sorted({now, *_RUNS}) if now >= ENOUGH_SEEDS else [now]
        plans = []
        for runs in several:
            # (With fewer than three seeds, a variance counts as that of one.)
            seeds = runs if now >= ENOUGH_SEEDS else 1
            count = None
            if estimate is not None and estimate.variance is not None:
                count = needed_groups(estimate.variance, groups, difference, seeds)
            plans.append(Plan(runs, count, count and round(count * documents / groups)))
        detectable = detectable_of(estimates, models, metric)
        sizes.append(SampleSize(name, now, groups, documents, detectable, plans))
    return sizes
