"""Single conversations about which the arms disagree, for a reader to look at."""

from __future__ import annotations

from dataclasses import dataclass


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
