"""Single conversations about which the arms disagree, for a reader to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regreason_plugin.comparison.task_scores import TaskScores
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.samples import read_documents, samples_file

# As many as a page can hold and still open fast.
MOST = 2_000


@dataclass(frozen=True)
class Disagreement:
    """One document, and what each arm makes of it.

    Attributes:
        task: Its task.
        id: Its own.
        label: The right label.
        prompt: What the models read.
        explanation: Why the label is right, as rated.
        predictions: By arm, the baseline first; over several seeds the most likely label of
            the mean probabilities.
        probabilities: By arm, of the labels 1 to 5: the mean over the seeds.
    """

    task: str
    id: str
    label: int
    prompt: str
    explanation: str
    predictions: dict[str, int]
    probabilities: dict[str, list[float]]


def choose(
    tasks: Sequence[TaskScores], read_from: Run, arms: Mapping[str, Sequence[int]]
) -> tuple[list[Disagreement], int]:
    """The documents about which the arms' predictions differ most.

    Those come first whose right label has the most unequal probabilities, as many of each
    setting as there is room for.

    Args:
        tasks: What was read of each setting.
        read_from: The model in whose samples the texts are.
        arms: The places of each arm's models, the baseline first.

    Returns:
        At most `MOST` of them, by setting and from the largest difference down; and how many
        there are in all.
    """
    by_task = [_differing(scores, arms) for scores in tasks]
    room, chosen = MOST, {}
    # The settings with the fewest first, so that what they leave goes to the others.
    for turn, place in enumerate(sorted(range(len(tasks)), key=lambda i: len(by_task[i]))):
        chosen[place] = by_task[place][: room // (len(tasks) - turn)]
        room -= len(chosen[place])
    disagreements: list[Disagreement] = []
    for place, scores in enumerate(tasks):
        disagreements += _with_texts(scores, chosen[place], read_from, arms)
    return disagreements, sum(map(len, by_task))


def _differing(scores: TaskScores, arms: Mapping[str, Sequence[int]]) -> list[int]:
    """Places of the documents with unequal predictions, the most unequal first."""
    means = np.stack([scores.probabilities[list(models)].mean(axis=0) for models in arms.values()])
    best = means.argmax(axis=2)
    differ = np.flatnonzero((best != best[0]).any(axis=0))
    right = means[:, differ, scores.labels[differ] - 1]
    spread = right.max(axis=0) - right.min(axis=0)
    return [int(place) for place in differ[np.argsort(-spread, kind="stable")]]


def _with_texts(
    scores: TaskScores, places: list[int], run: Run, arms: Mapping[str, Sequence[int]]
) -> list[Disagreement]:
    ids = [scores.ids[place] for place in places]
    texts = read_documents(samples_file(run.tasks[scores.task]), ids) if ids else {}
    means = {arm: scores.probabilities[list(of)].mean(axis=0) for arm, of in arms.items()}
    return [
        Disagreement(
            task=scores.task,
            id=one,
            label=texts[one].label,
            prompt=texts[one].prompt,
            explanation=texts[one].explanation,
            predictions={arm: int(mean[place].argmax()) + 1 for arm, mean in means.items()},
            probabilities={
                arm: [round(float(p), 4) for p in mean[place]] for arm, mean in means.items()
            },
        )
        for place, one in zip(places, ids, strict=True)
    ]
