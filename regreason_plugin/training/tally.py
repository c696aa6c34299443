"""What the steps between two lines of the log say of the label and of the other tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regreason_plugin.training.label_loss import token_sums
from regreason_plugin.training.label_place import LabelPlace


class Tally:
    """Sums over batches; one addition a batch, and no wait for the device.

    Args:
        place: Of the label in a row's target.

    Attributes:
        label_tokens: Tokens of labels trained on since the start, over all processes.
        target_tokens: All tokens trained on.
    """

    def __init__(self, place: LabelPlace) -> None:
        self._place = place
        self._choices = torch.tensor(place.choices, dtype=torch.long)
        self.label_tokens = 0
        self.target_tokens = 0
        self.reset()

    def reset(self) -> None:
        """Forget the sums."""
        self._sums: Tensor | None = None

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            logits: ``[B, T, V]``; position t predicts token t + 1.
            labels: ``[B, T]``, -100 where no loss is taken.
        """
        sums = token_sums(logits, labels, self._place)
        right, rows = self._accuracy(logits, labels)
        batch = torch.stack([sums.label, sums.other, *sums.counts, right, rows]).double()
        self._sums = batch if self._sums is None else self._sums + batch

    def _accuracy(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """How many of the labels are predicted, given what precedes their last token.

        Between the labels, if they part there; else among all tokens.
        """
        label = self._place.mask(labels)
        # The last token of each label, where the labels differ.
        last = label.clone()
        last[..., :-1] &= ~label[..., 1:]
        wanted = last[..., 1:]
        scores, target = logits[..., :-1, :][wanted], labels[..., 1:][wanted]
        if len(self._choices):
            choices = self._choices.to(scores.device)
            predicted = choices[scores[:, choices].argmax(dim=-1)]
        else:
            predicted = scores.argmax(dim=-1)
        return (predicted == target).sum(), wanted.sum()

    def take(self, accelerator: Any) -> dict[str, float]:
        """The means over all processes since the last time, and the tokens seen so far.

        Args:
            accelerator: Of the trainer; all its processes have to call this.
        """
        if self._sums is None:
            return {}
        summed = accelerator.reduce(self._sums, reduction="sum").tolist()
        self.reset()
        label, other, labels, others, right, rows = summed
        self.label_tokens += round(labels)
        self.target_tokens += round(labels + others)
        return {
            "label_loss": label / max(labels, 1),
            "explanation_loss": other / max(others, 1),
            "label_acc": right / max(rows, 1),
            "label_tokens_seen": self.label_tokens,
            "target_tokens_seen": self.target_tokens,
        }
