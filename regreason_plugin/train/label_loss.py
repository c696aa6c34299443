"""The loss as means over a whole optimizer step, and the label's share of it.

Axolotl's own loss is the mean over the target tokens of a micro-batch, and then the mean over
the micro-batches of a step and over the processes. So a token weighs less where its micro-batch
has more of them, and the loss depends on how the rows of a step are cut. Here all means are taken
over the step, whatever its micro-batches, packs and processes: over all of its target tokens,
each of which has the same weight, or with a share r

    r * mean over label tokens + (1 - r) * mean over the other target tokens

Without a share, the longer an explanation, the smaller the label's part of the loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from regreason_plugin.train.label_span import LabelPlace
from regreason_plugin.train.row_tokens import IGNORE


class TokenSums(NamedTuple):
    """Sums over the target tokens of a batch; scalars.

    Attributes:
        label: Cross-entropy of the label's tokens, in nats.
        other: Of all others, the end of text among them.
        counts: ``[2]``, how many tokens either has.
    """

    label: Tensor
    other: Tensor
    counts: Tensor


def count_tokens(labels: Tensor, place: LabelPlace) -> Tensor:
    """``[2]``: how many tokens of labels, and how many others, the loss is taken on.

    Args:
        labels: ``[B, T]``, -100 where no loss is taken.
        place: Of the label in a target.
    """
    # The first token of a sequence is predicted from nothing.
    target = labels[..., 1:] != IGNORE
    label = place.mask(labels)[..., 1:]
    return torch.stack([label.sum(), (target & ~label).sum()])


def token_sums(
    logits: Tensor, labels: Tensor, place: LabelPlace, smoothing: float = 0.0
) -> TokenSums:
    """Sum the cross-entropies of a batch, in float32.

    Args:
        logits: ``[B, T, V]``; position t predicts token t + 1.
        labels: ``[B, T]``, -100 where no loss is taken.
        place: Of the label in a target.
        smoothing: The share of probability that label smoothing spreads over the vocabulary.
    """
    target = labels[..., 1:]
    wanted = target != IGNORE
    losses = F.cross_entropy(
        logits[..., :-1, :][wanted].float(),
        target[wanted],
        reduction="none",
        label_smoothing=smoothing,
    )
    label = place.mask(labels)[..., 1:][wanted]
    counts = torch.stack([label.sum(), (~label).sum()])
    return TokenSums(losses[label].sum(), losses[~label].sum(), counts)


def step_loss(sums: TokenSums, counts: Tensor, share: float | None) -> Tensor:
    """The part of an optimizer step's loss that one batch has; a scalar.

    Args:
        sums: Of the batch.
        counts: Of the whole step and all processes, as `count_tokens`.
        share: r above; None for the mean over all target tokens.
    """
    if share is None:
        return (sums.label + sums.other) / counts.sum().clamp(min=1)
    label, other = counts.clamp(min=1)
    loss: Tensor = share * sums.label / label + (1 - share) * sums.other / other
    return loss
