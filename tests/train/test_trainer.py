"""The trainer's handling of a single batch, without a training around it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from axolotl.core.trainers import AxolotlTrainer

from regreason_plugin.train.cost_meter import Meter
from regreason_plugin.train.label_span import LabelPosition
from regreason_plugin.train.log_metrics import Tally
from regreason_plugin.train.trainer import RegReasonTrainer

pytestmark = pytest.mark.integration

IGNORE = -100
PLACE = LabelPosition(((1,), (2,)), first=True)
LABELS = torch.tensor([[IGNORE, 1, 9, 8], [IGNORE, 2, 9, IGNORE], [IGNORE, 2, 7, 7]])


class Alone:
    """An accelerator that sums over one process."""

    def __init__(self, remainder: int = -1, rank: int = 0, *, last: bool = True) -> None:
        self.process_index = rank
        self.gradient_state = SimpleNamespace(end_of_dataloader=last, remainder=remainder)

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        return tensor


def trainer(accelerator: Alone, *, packed: bool = False) -> Any:
    found: Any = object.__new__(RegReasonTrainer)
    found.label_place = PLACE
    found.tally, found.evaluated = Tally(PLACE), Tally(PLACE)
    found.meter = Meter()
    found.accelerator = accelerator
    found.args = SimpleNamespace(sample_packing=packed, eval_sample_packing=packed)
    found.is_world_process_zero = lambda: True
    return found


def run(one: Any, outputs: Any, monkeypatch: pytest.MonkeyPatch, *, training: bool) -> None:
    one.loss_labels, one.loss_rows = LABELS, torch.arange(len(LABELS))[:, None]
    one.loss_batch_rows = len(LABELS)
    monkeypatch.setattr(AxolotlTrainer, "compute_loss", lambda *_, **__: (0.0, outputs))
    model = SimpleNamespace(training=training)
    assert one.compute_loss(model, {"labels": LABELS}) == 0.0


def test_a_loss_without_logits_is_said_once_and_tokens_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = trainer(Alone())
    for _ in range(3):
        run(one, {"loss": 0.0}, monkeypatch, training=True)
    assert one.tally.take(one.accelerator) == {}
    assert one.tally.seen(one.accelerator) == {"label_tokens_seen": 9, "target_tokens_seen": 24}
    assert capsys.readouterr().err.count("this loss computes no logits") == 1


@pytest.mark.parametrize(
    ("accelerator", "packed", "rows"),
    [
        (Alone(), False, 3),
        (Alone(remainder=0), False, 3),
        (Alone(remainder=5, last=False), False, 3),
        # Two processes read five rows in batches of three, so the second has only two real rows.
        (Alone(remainder=5), False, 3),
        (Alone(remainder=5, rank=1), False, 2),
        (Alone(remainder=2, rank=1), False, 0),
        (Alone(remainder=2, rank=1), True, 3),
    ],
)
def test_an_evaluation_counts_each_row_once(
    accelerator: Alone, packed: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trainer(accelerator, packed=packed)
    outputs = SimpleNamespace(logits=torch.zeros(3, 4, 12))
    run(one, outputs, monkeypatch, training=False)
    assert one.evaluated.seen(accelerator)["label_tokens_seen"] == rows
