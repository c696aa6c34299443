"""Counts that continue after a resume, and metrics of the label in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regreason_plugin.train.label_span import LabelPosition
from regreason_plugin.train.log_metrics import Tally

IGNORE = -100
PLACE = LabelPosition(((1,), (2,)), first=True)
LABELS = torch.tensor([[IGNORE, IGNORE, 1, 9, 8], [IGNORE, 2, 9, IGNORE, IGNORE]])


class Alone:
    """An accelerator of one process."""

    is_main_process = True
    device = "cpu"

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return tensor


class NotFirst(Alone):
    is_main_process = False


def logits() -> torch.Tensor:
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))


def test_counts_go_on_where_they_were_saved() -> None:
    accelerator: Any = Alone()
    whole, killed, resumed, beside = (Tally(PLACE) for _ in range(4))
    for tally in (whole, killed):
        tally.add(logits(), LABELS)
        tally.take(accelerator)
        tally.add(logits() + 1, LABELS)  # not logged yet
    state = killed.state(accelerator)
    assert killed.seen(accelerator) == {"label_tokens_seen": 4, "target_tokens_seen": 10}
    resumed.restore(state, accelerator)
    for tally in (whole, resumed):
        tally.add(logits() * 3, LABELS)
    assert resumed.seen(accelerator) == whole.seen(accelerator)
    assert resumed.take(accelerator) == whole.take(accelerator)
    # Only one of several processes goes on with the sums.
    beside.restore(state, NotFirst())
    assert beside.take(NotFirst()) == {}


def test_without_logits_tokens_are_counted_still() -> None:
    tally = Tally(PLACE)
    tally.add(None, LABELS)
    assert tally.take(Alone()) == {}
    assert tally.seen(Alone()) == {"label_tokens_seen": 2, "target_tokens_seen": 5}
    tally.add(logits(), LABELS)
    assert tally.take(Alone())["label_loss"] == pytest.approx(
        float(
            torch.nn.functional.cross_entropy(
                torch.stack([logits()[0, 1], logits()[1, 0]]), torch.tensor([1, 2])
            )
        )
    )


def accuracy(place: LabelPosition, likely: list[list[int]], labels: list[list[int]]) -> Any:
    """Logged metrics of a batch in which these tokens are the most likely at their positions."""
    scores = torch.nn.functional.one_hot(torch.tensor(likely), 12).float()
    tally = Tally(place)
    tally.add(scores, torch.tensor(labels))
    found = tally.take(Alone())
    return {name: value for name, value in found.items() if name.endswith("_loss") is False}


def test_an_accuracy_is_called_what_it_is() -> None:
    labels = [[IGNORE, 3, 1, 9], [IGNORE, 3, 2, 9]]
    # Correct, because it beats the other label, 1; the more likely 7 is no label.
    likely = [[3, 1, 9, 0], [3, 7, 9, 0]]
    both = ((3, 1), (3, 2))
    assert accuracy(LabelPosition(both, True, 0, (1, 2)), likely, labels) == {"label_acc": 0.5}
    assert accuracy(LabelPosition(both, False, 1, (1, 2)), likely, labels) == {
        "label_acc_after_explanation": 0.5
    }
    assert accuracy(LabelPosition(both, True), likely, labels) == {"label_token_acc": 0.75}


def test_tokens_after_the_true_first_ones_are_no_labels() -> None:
    """Two of three tokens determine the label, and yet the model predicts the other label."""
    first, second = (1, 4, 5), (2, 6, 7)
    labels = [[IGNORE, *first, 9], [IGNORE, *second, 9]]
    likely = [[2, 4, 5, 9, 0], [1, 6, 7, 9, 0]]
    found = accuracy(LabelPosition((first, second), True), likely, labels)
    assert found == {"label_token_acc": pytest.approx(4 / 6)}
