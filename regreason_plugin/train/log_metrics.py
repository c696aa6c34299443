"""Losses and accuracies of the label and the other target tokens, for one line of the log."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regreason_plugin.train.label_loss import count_tokens, token_sums
from regreason_plugin.train.label_span import LabelPosition


class Tally:
    """Sums over batches; a batch costs one addition and no wait for the device.

    Every process must call each method that takes an accelerator, and at the same step.

    Args:
        place: Position of the label in a row's target.
    """

    def __init__(self, place: LabelPosition) -> None:
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
        """Set the sums to zero."""
        self._sums: Tensor | None = None

    @torch.no_grad()
    def add(self, logits: Tensor | None, labels: Tensor) -> None:
        """Add a batch to the sums.

        Args:
            logits: ``[B, T, V]``; position t predicts token t + 1. None with a fused loss, which
                computes no logits; then only tokens are counted.
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
        """Number of correct predictions and number of predictions.

        If one token decides between the labels, each label is one prediction: the most likely of
        the labels. Otherwise each token of a label is one prediction: the most likely of all
        tokens, given the label's true tokens before it. The second says less, because the label's
        first token may already give the label away.
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
        """Means over all processes since the last call; empty without logits.

        Args:
            accelerator: The trainer's accelerator.
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
        """Number of tokens trained on since the first step, over all processes.

        Args:
            accelerator: The trainer's accelerator.

        Returns:
            ``label_tokens_seen``, and ``target_tokens_seen`` for all target tokens, the label's
            included.
        """
        _, _, labels, others, _, _ = self._summed(accelerator)
        return {
            "label_tokens_seen": self._label_tokens + round(labels),
            "target_tokens_seen": self._target_tokens + round(labels + others),
        }

    def state(self, accelerator: Any) -> dict[str, Any]:
        """The counts, with which a resumed training goes on.

        Args:
            accelerator: The trainer's accelerator.
        """
        return {
            "label_tokens": self._label_tokens,
            "target_tokens": self._target_tokens,
            "sums": self._summed(accelerator),
        }

    def restore(self, state: dict[str, Any], accelerator: Any) -> None:
        """Go on from the counts that `state` has returned.

        Args:
            state: The value that `state` has returned.
            accelerator: The trainer's accelerator.
        """
        self._label_tokens = state["label_tokens"]
        self._target_tokens = state["target_tokens"]
        # The sums are over all processes, so only one process goes on with them.
        part = 1.0 if accelerator.is_main_process else 0.0
        sums = torch.tensor(state["sums"], dtype=torch.double, device=accelerator.device)
        self._sums = sums * part

    def _summed(self, accelerator: Any) -> list[float]:
        if self._sums is None:
            return [0.0] * 6
        summed: list[float] = accelerator.reduce(self._sums, reduction="sum").tolist()
        return summed
