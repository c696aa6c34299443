"""The hyperparameters: those with which `label_only` predicts the validation labels best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regreason_plugin.core.training_curves import read_log
from regreason_plugin.study.plan import Hyperparameters, Plan


@dataclass(frozen=True)
class Choice(Hyperparameters):
    """What was chosen, and from what.

    Attributes:
        losses: The loss on the labels of the validation rows at the end of the training, in
            nats, of each setting.
    """

    losses: tuple[tuple[Hyperparameters, float], ...]

    def describe(self) -> str:
        """In a sentence."""
        return (
            f"\nChosen on validation, for label_only: learning rate {self.learning_rate:g}, "
            f"{self.num_epochs} epochs"
        )


def choose(plan: Plan) -> Choice:
    """Read the validation losses that the choosing stages left, and take the lowest."""
    losses = tuple(
        (setting, last_evaluation(plan.chosen_from(setting))["eval_label_loss"])
        for setting in plan.settings
    )
    best, _ = min(losses, key=lambda pair: pair[1])
    return Choice(best.learning_rate, best.num_epochs, losses)


def last_evaluation(model: Path) -> dict[str, float]:
    """The last line with a validation loss."""
    return [line for line in read_log(model) if "eval_label_loss" in line][-1]
