"""Chooses hyperparameters: the keys with the lowest validation loss of one condition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regreason_plugin.core.training_curves import read_log
from regreason_plugin.study.plan import Plan
from regreason_plugin.study.study_file import AxolotlKeys


@dataclass(frozen=True)
class Chosen:
    """The chosen keys, and the candidates' losses.

    Attributes:
        keys: The keys that all conditions get; empty if the study chooses nothing.
        losses: For each candidate: its keys, and the loss on the labels of the validation rows at
            the end of its training, in nats per token.
    """

    keys: AxolotlKeys
    losses: tuple[tuple[AxolotlKeys, float], ...] = ()

    def describe(self, condition: str) -> str:
        """The choice in a sentence."""
        keys = ", ".join(f"{key} {value}" for key, value in self.keys.items())
        return f"\nChosen on validation, for {condition}: {keys}"


def choose(plan: Plan) -> Chosen:
    """Choose the candidate with the lowest validation loss in the logs of the choosing stages."""
    if plan.study.choose is None:
        return Chosen({})
    losses = tuple(
        (keys, last_evaluation(plan.candidate(keys))["eval_label_loss"])
        for keys in plan.study.choose.candidates()
    )
    best, _ = min(losses, key=lambda pair: pair[1])
    return Chosen(best, losses)


def last_evaluation(model: Path) -> dict[str, float]:
    """The last line with a validation loss in a model's training log."""
    return [line for line in read_log(model) if "eval_label_loss" in line][-1]
