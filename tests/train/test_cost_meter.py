"""Tokens and seconds of a training, summed over its parts."""

from __future__ import annotations

import time
from itertools import chain
from typing import Any

import pytest
import torch

from regreason_plugin.train.cost_meter import Meter, count_read


class Twice:
    """An accelerator of two processes that read the same rows."""

    device = torch.device("cpu")

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return 2 * tensor


# The numbers are those of the packed rows; 0 is padding.
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 2, 2]])


def test_padding_is_left_out_and_a_resumed_training_goes_on_counting() -> None:
    accelerator: Any = Twice()
    first = Meter()
    assert first.state(accelerator)["tokens"] == 0
    first.add(count_read({"attention_mask": MASK}))
    first.add(count_read({"attention_mask": MASK}))
    time.sleep(0.05)
    state = first.state(accelerator)
    assert state["tokens"] == 2 * 2 * 7
    assert state["seconds"] >= 0.05
    resumed = Meter({**state, "seconds": 1000.0})
    resumed.add(count_read({"attention_mask": MASK}))
    cost = resumed.cost(accelerator)
    assert cost.tokens == 2 * 3 * 7
    assert 1000 <= cost.seconds < 1010


def test_where_nothing_tells_padding_there_is_no_count() -> None:
    accelerator: Any = Twice()
    meter = Meter()
    meter.add(count_read({"attention_mask": MASK}))
    meter.add(count_read({}))
    assert meter.cost(accelerator).tokens is None
    # A training that resumes from there does not know its tokens either.
    resumed = Meter(meter.state(accelerator))
    resumed.add(count_read({"attention_mask": MASK}))
    assert resumed.cost(accelerator).tokens is None


@pytest.mark.parametrize("padded_left", [False, True])
def test_packed_rows_without_a_mask_are_told_from_padding(padded_left: bool) -> None:
    rows = [[0, 1, 2, 3], [0, 1], [0, 1, 2]]
    # The last row ends with a token without a target, as with some chat templates.
    targets = [[-100, -100, 7, 8], [-100, 9], [-100, 5, -100]]
    parts = [*zip(rows, targets, strict=True)]
    nothing = ([0, 1], [-100, -100])
    parts = [nothing, *parts] if padded_left else [*parts, nothing]
    positions, labels = ([*chain.from_iterable(part)] for part in zip(*parts, strict=True))
    batch = {"position_ids": torch.tensor([positions] * 2), "labels": torch.tensor([labels] * 2)}
    counted = count_read(batch)
    assert counted is not None
    assert int(counted) == 2 * 9
