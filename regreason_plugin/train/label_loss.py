"""A loss whose means are taken over a whole optimizer step, and the label's share of that loss.

Axolotl's own loss is the mean over the target tokens of a micro-batch, then the mean of these
means over the micro-batches of a step and over the processes. A token therefore weighs less in a
micro-batch with more target tokens, and the loss depends on how the rows of a step are split.

Here every mean is taken over the whole step, however the step is split into micro-batches, packs
and processes. Without a share, the loss is the mean over all target tokens of the step, each with
the same weight, so the label's part of the loss shrinks as the explanation grows. With a share r,
the loss is

    r * mean over label tokens + (1 - r) * mean over the other target tokens

With class weights, the cross-entropy of a label's tokens is multiplied by the weight of its class.
The means still divide by the number of tokens, not by the sum of the weights: weights whose mean
over the train rows is 1 then keep the label's part of the loss, and a batch of one class keeps its
weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from regreason_plugin.train.label_span import LabelPosition
from regreason_plugin.train.row_tokens import IGNORE


class TokenSums(NamedTuple):
    """Sums over the target tokens of a batch.

    Attributes:
        label: Summed cross-entropy of the label's tokens, in nats, times their weights; a scalar.
        other: Summed cross-entropy of all other target tokens, the end of text included, in
            nats; a scalar.
        counts: ``[2]``; the number of label tokens and of other target tokens.
    """

    label: Tensor
    other: Tensor
    counts: Tensor


def count_tokens(labels: Tensor, place: LabelPosition) -> Tensor:
    """Number of label tokens and of other target tokens, ``[2]``.

    Args:
        labels: ``[B, T]``, -100 where no loss is taken.
        place: Position of the label in a target.
    """
    # No position predicts the first token of a sequence.
    target = labels[..., 1:] != IGNORE
    label = place.mask(labels)[..., 1:]
    return torch.stack([label.sum(), (target & ~label).sum()])


def token_sums(
    logits: Tensor,
    labels: Tensor,
    place: LabelPosition,
    smoothing: float = 0.0,
    weights: Sequence[float] | None = None,
) -> TokenSums:
    """Sum the cross-entropies of a batch, in float32.

    Args:
        logits: ``[B, T, V]``; position t predicts token t + 1.
        labels: ``[B, T]``, -100 where no loss is taken.
        place: Position of the label in a target.
        smoothing: Probability mass that label smoothing spreads evenly over the vocabulary.
        weights: The class weight of each of ``place.labels``; by default 1.
    """
    target = labels[..., 1:]
    wanted = target != IGNORE
    losses = F.cross_entropy(
        logits[..., :-1, :][wanted].float(),
        target[wanted],
        reduction="none",
        label_smoothing=smoothing,
    )
    which = place.which(labels)[..., 1:][wanted]
    label = which != 0
    if weights is not None:
        losses = losses * losses.new_tensor([1.0, *weights])[which]
    counts = torch.stack([label.sum(), (~label).sum()])
    return TokenSums(losses[label].sum(), losses[~label].sum(), counts)


def step_loss(sums: TokenSums, counts: Tensor, share: float | None) -> Tensor:
    """One batch's part of the loss of an optimizer step; a scalar.

    Args:
        sums: Sums of the batch.
        counts: Token counts of the whole step over all processes, in the form of `count_tokens`.
        share: The r of the module's formula; None for the mean over all target tokens.
    """
    if share is None:
        return (sums.label + sums.other) / counts.sum().clamp(min=1)
    label, other = counts.clamp(min=1)
    loss: Tensor = share * sums.label / label + (1 - share) * sums.other / other
    return loss
