"""Single documents about which the arms disagree, for a reader to inspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regreason_plugin.comparison.task_scores import TaskScores
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.samples import read_documents, samples_file

# The largest number of documents with which the page still opens fast.
MOST = 2_000


@dataclass(frozen=True)
class Disagreement:
    """One document and the predictions of every arm.

    Attributes:
        task: The name of the task.
        id: The id of the document.
        label: The number of the right label, from 1.
        prompt: The text that the models read.
        explanation: The raters' explanation of the right label.
        predictions: The number of each arm's predicted label, the baseline first: the most likely
            label under the probabilities averaged over seeds.
        probabilities: Each arm's probabilities of the labels, in their order, averaged over seeds.
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
    """Choose the documents about which the arms' predictions differ most.

    Documents are ranked by how much the arms' probabilities of the right label differ. The settings
    share the available places equally; places that a setting does not need go to the others.

    Args:
        tasks: The scores of each task.
        read_from: The model whose samples hold the texts.
        arms: The numbers of each arm's models, the baseline first.

    Returns:
        At most `MOST` documents, by setting and in descending order of the difference; and the
        number of all documents about which the arms disagree.
    """
    by_task = [_differing(scores, arms) for scores in tasks]
    room, chosen = MOST, {}
    # The settings with the fewest disagreements come first, so that the others get the free places.
    for turn, place in enumerate(sorted(range(len(tasks)), key=lambda i: len(by_task[i]))):
        chosen[place] = by_task[place][: room // (len(tasks) - turn)]
        room -= len(chosen[place])
    disagreements: list[Disagreement] = []
    for place, scores in enumerate(tasks):
        disagreements += _with_texts(scores, chosen[place], read_from, arms)
    return disagreements, sum(map(len, by_task))


def _differing(scores: TaskScores, arms: Mapping[str, Sequence[int]]) -> list[int]:
    """Indices of the documents with different predictions, the largest difference first."""
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
