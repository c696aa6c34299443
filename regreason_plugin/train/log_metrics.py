"""What the steps between two lines of the log say of the label and of the other tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regreason_plugin.train.label_loss import count_tokens, token_sums
from regreason_plugin.train.label_span import LabelPlace


class Tally:
    """Sums over batches; one addition a batch, and no wait for the device.

    Whatever takes an accelerator has to be called by all its processes at the same step.

    Args:
        place: Of the label in a row's target.
    """

    def __init__(self, place: LabelPlace) -> None:
        self._place = place
        self._choices = torch.tensor(place.choices, dtype=torch.long)
        self._accuracy_name = (
            "label_token_acc"
            if not place.choices
            else "label_acc"
            if place.first
            else "label_acc_after_explanation"
        )
        self._label_tokens = 0
        self._target_tokens = 0
        self.reset()

    def reset(self) -> None:
        """Forget the sums."""
        self._sums: Tensor | None = None

    @torch.no_grad()
    def add(self, logits: Tensor | None, labels: Tensor) -> None:
        """Count a batch.

        Args:
            logits: ``[B, T, V]``; position t predicts token t + 1. None of a fused loss,
                which makes none: then there is nothing to count but tokens.
            labels: ``[B, T]``, -100 where no loss is taken.
        """
        if logits is None:
            batch = torch.zeros(6, dtype=torch.double, device=labels.device)
            batch[2:4] = count_tokens(labels, self._place)
        else:
            sums = token_sums(logits, labels, self._place)
            right, predicted = self._accuracy(logits, labels)
            batch = torch.stack([sums.label, sums.other, *sums.counts, right, predicted]).double()
        self._sums = batch if self._sums is None else self._sums + batch

    def _accuracy(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """How many labels are predicted, of how many; of their tokens, if no one token decides.

        A label is predicted among the labels; a token among all tokens, given the label's true
        ones before it. That says less: the first of them may already have given the label away.
        """
        label = self._place.mask(labels)
        if not len(self._choices):
            wanted = label[..., 1:]
            scores, target = logits[..., :-1, :][wanted], labels[..., 1:][wanted]
            return (scores.argmax(dim=-1) == target).sum(), wanted.sum()
        # The last token of each label, where the labels differ.
        last = label.clone()
        last[..., :-1] &= ~label[..., 1:]
        wanted = last[..., 1:]
        scores, target = logits[..., :-1, :][wanted], labels[..., 1:][wanted]
        choices = self._choices.to(scores.device)
        predicted = choices[scores[:, choices].argmax(dim=-1)]
        return (predicted == target).sum(), wanted.sum()

    def take(self, accelerator: Any) -> dict[str, float]:
        """The means over all processes since the last time; none without logits.

        Args:
            accelerator: Of the trainer.
        """
        summed = self._summed(accelerator)
        self.reset()
        label, other, labels, others, right, predicted = summed
        self._label_tokens += round(labels)
        self._target_tokens += round(labels + others)
        if not predicted:
            return {}
        return {
            "label_loss": label / max(labels, 1),
            "explanation_loss": other / max(others, 1),
            self._accuracy_name: right / predicted,
        }

    def seen(self, accelerator: Any) -> dict[str, int]:
        """Tokens trained on since the first step, over all processes.

        Args:
            accelerator: Of the trainer.

        Returns:
            ``label_tokens_seen``, and of the label and all others ``target_tokens_seen``.
        """
        _, _, labels, others, _, _ = self._summed(accelerator)
        return {
            "label_tokens_seen": self._label_tokens + round(labels),
            "target_tokens_seen": self._target_tokens + round(labels + others),
        }

    def state(self, accelerator: Any) -> dict[str, Any]:
        """What a resumed training needs to go on counting.

        Args:
            accelerator: Of the trainer.
        """
        return {
            "label_tokens": self._label_tokens,
            "target_tokens": self._target_tokens,
            "sums": self._summed(accelerator),
        }

    def restore(self, state: dict[str, Any], accelerator: Any) -> None:
        """Go on where `state` was taken.

        Args:
            state: As it was returned.
            accelerator: Of the trainer.
        """
        self._label_tokens = state["label_tokens"]
        self._target_tokens = state["target_tokens"]
        # The sums are those of all processes: one goes on with them.
        part = 1.0 if accelerator.is_main_process else 0.0
        sums = torch.tensor(state["sums"], dtype=torch.double, device=accelerator.device)
        self._sums = sums * part

    def _summed(self, accelerator: Any) -> list[float]:
        if self._sums is None:
            return [0.0] * 6
        summed: list[float] = accelerator.reduce(self._sums, reduction="sum").tolist()
        return summed
