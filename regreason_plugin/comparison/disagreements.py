"""Single documents about which the arms disagree, for a reader to inspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.comparison.task_scores import TaskScores
from regreason_plugin.evaluate.logged_texts import read_texts
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.samples import read_documents, samples_file

# The largest number of documents with which the page still opens fast.
MOST = 2_000


@dataclass(frozen=True)
class Disagreement:
    """One document and the predictions of every arm.

    A document of any task of lm_eval has ``names`` of its own. If it has no answer choices, these
    are the target and the arms' answers, and there are no probabilities.

    Attributes:
        task: The name of the task.
        id: The id of the document.
        label: The number of the right label, from 1.
        prompt: The text that the models read.
        explanation: The raters' explanation of the right label.
        predictions: The number of each arm's predicted label, the baseline first: the most likely
            label under the probabilities averaged over seeds.
        probabilities: Each arm's probabilities of the labels, in their order, averaged over seeds.
        names: The texts of the labels of this document; empty for the labels of the task.
        right: Whether each arm's prediction counts as right; empty if it is the right label.
    """

    task: str
    id: str
    label: int
    prompt: str
    explanation: str
    predictions: dict[str, int]
    probabilities: dict[str, list[float]]
    names: list[str] = field(default_factory=list)
    right: dict[str, bool] = field(default_factory=dict)


def choose(
    tasks: Sequence[TaskScores], runs: Sequence[Run], arms: Mapping[str, Sequence[int]]
) -> tuple[list[Disagreement], int]:
    """Choose the documents about which the arms' predictions differ most.

    Documents are ranked by how much the arms' probabilities of the right label differ, or their
    values of the main metric of any other task. The settings
    share the available places equally; places that a setting does not need go to the others.

    Args:
        tasks: The scores of each task.
        runs: All models. The first one's samples hold the texts; the answers to other tasks of
            lm_eval are those of each arm's first model.
        arms: The numbers of each arm's models, the baseline first.

    Returns:
        At most `MOST` documents, by setting and in descending order of the difference; and the
        number of all documents about which the arms disagree.
    """
    by_task = [
        (_differing_values if scores.logged else _differing)(scores, arms) for scores in tasks
    ]
    room, chosen = MOST, {}
    # The settings with the fewest disagreements come first, so that the others get the free places.
    for turn, place in enumerate(sorted(range(len(tasks)), key=lambda i: len(by_task[i]))):
        chosen[place] = by_task[place][: room // (len(tasks) - turn)]
        room -= len(chosen[place])
    disagreements: list[Disagreement] = []
    for place, scores in enumerate(tasks):
        with_texts = _with_logged_texts if scores.logged else _with_texts
        disagreements += with_texts(scores, chosen[place], runs, arms)
    return disagreements, sum(map(len, by_task))


def _differing(scores: TaskScores, arms: Mapping[str, Sequence[int]]) -> list[int]:
    """Indices of the documents with different predictions, the largest difference first."""
    assert scores.labelled
    means = np.stack([of.mean(axis=0) for of in _of_arms(scores.labelled.probabilities, arms)])
    best = means.argmax(axis=2)
    differ = np.flatnonzero((best != best[0]).any(axis=0))
    right = means[:, differ, scores.labelled.labels[differ] - 1]
    spread = right.max(axis=0) - right.min(axis=0)
    return [int(place) for place in differ[np.argsort(-spread, kind="stable")]]


def _differing_values(scores: TaskScores, arms: Mapping[str, Sequence[int]]) -> list[int]:
    """Indices of the documents with different values of the main metric, as in `_differing`."""
    main = next(iter(scores.metrics), None)
    if main not in scores.values:
        return []
    means = np.stack([of.mean(axis=0) for of in _of_arms(scores.values[main], arms)])
    spread = np.nan_to_num(means.max(axis=0) - means.min(axis=0))
    order = np.argsort(-spread, kind="stable")
    return [int(place) for place in order if spread[place] > 0]


def _of_arms(
    figures: NDArray[np.float32], arms: Mapping[str, Sequence[int]]
) -> list[NDArray[np.float32]]:
    return [figures[list(models)] for models in arms.values()]


def _with_texts(
    scores: TaskScores,
    places: list[int],
    runs: Sequence[Run],
    arms: Mapping[str, Sequence[int]],
) -> list[Disagreement]:
    assert scores.labelled
    ids = [scores.ids[place] for place in places]
    texts = read_documents(samples_file(runs[0].tasks[scores.task]), ids) if ids else {}
    probabilities = scores.labelled.probabilities
    means = {arm: probabilities[list(of)].mean(axis=0) for arm, of in arms.items()}
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


def _with_logged_texts(
    scores: TaskScores,
    places: list[int],
    runs: Sequence[Run],
    arms: Mapping[str, Sequence[int]],
) -> list[Disagreement]:
    if not places:
        return []
    main = next(iter(scores.metrics))
    values = scores.values[main]
    firsts = {arm: models[0] for arm, models in arms.items()}
    texts = {
        arm: read_texts(runs[model].logged[scores.task], scores.lines[model][places])
        for arm, model in firsts.items()
    }
    disagreements = []
    for at, place in enumerate(places):
        of_arms = {arm: of[at] for arm, of in texts.items()}
        one = next(iter(of_arms.values()))
        names = list(one.choices)
        if not names:
            names = [one.target, *dict.fromkeys(of.answer for of in of_arms.values())]
        found = {arm: float(values[model, place]) for arm, model in firsts.items()}
        disagreements.append(
            Disagreement(
                task=scores.task,
                id=scores.ids[place],
                label=one.right + 1,
                prompt=one.prompt,
                explanation="; ".join(f"{main} of {arm}: {found[arm]:.3g}" for arm in found),
                predictions={
                    # (The target itself is the first name.)
                    arm: names.index(of.answer, 0 if one.choices else 1) + 1
                    for arm, of in of_arms.items()
                },
                probabilities={arm: of.probabilities for arm, of in of_arms.items()},
                names=names,
                right={arm: found[arm] == max(found.values()) for arm in found},
            )
        )
    return disagreements
