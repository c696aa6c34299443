"""Counts that go on after a resume, and an evaluation without the rows that fill batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regreason_plugin.training.label_place import LabelPlace
from regreason_plugin.training.tally import Tally

IGNORE = -100
PLACE = LabelPlace(((1,), (2,)), first=True)
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
        tally.add(logits() + 1, LABELS)  # not in the log yet
    state = killed.state(accelerator)
    assert killed.seen(accelerator) == {"label_tokens_seen": 4, "target_tokens_seen": 10}
    resumed.restore(state, accelerator)
    for tally in (whole, resumed):
        tally.add(logits() * 3, LABELS)
    assert resumed.seen(accelerator) == whole.seen(accelerator)
    assert resumed.take(accelerator) == whole.take(accelerator)
    # Of several processes, one goes on with the sums.
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
