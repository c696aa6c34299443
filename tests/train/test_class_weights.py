"""Class weights: exact in every way to cut a step, and only on the label's loss."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from helpers.step_training import LEARNING_RATE, Trainings, same_adapter, same_log
from sklearn.utils.class_weight import compute_class_weight

from regreason_plugin.core.errors import UserError
from regreason_plugin.train.class_weights import check_class_weights, class_weights
from regreason_plugin.train.label_loss import step_loss, token_sums
from regreason_plugin.train.label_span import LabelPosition

pytestmark = pytest.mark.e2e

IGNORE = -100
COUNTS = Counter({1: 6, 2: 3, 3: 1})
TEXTS = ["urgent", "normal", "spam"]
WEIGHTS = {"1": 5, "2": 1, "3": 1, "4": 0.5, "5": 2}


@pytest.mark.unit
def test_balanced_weights_are_scikit_learns() -> None:
    rows = np.repeat(list(COUNTS), list(COUNTS.values()))
    expected = compute_class_weight("balanced", classes=np.array([1, 2, 3]), y=rows)
    found = class_weights("balanced", COUNTS, TEXTS, "config.yml")
    assert [found[number] for number in (1, 2, 3)] == pytest.approx(expected.tolist())


@pytest.mark.unit
def test_given_weights_keep_their_ratios_and_have_a_mean_of_one() -> None:
    given = {"urgent": 2, "normal": 4.0, "spam": 1}
    found = class_weights(given, COUNTS, TEXTS, "config.yml")
    assert found[2] / found[1] == pytest.approx(2)
    assert found[1] / found[3] == pytest.approx(2)
    assert sum(found[label] * rows for label, rows in COUNTS.items()) == pytest.approx(10)
    # A number may be written without quotes in YAML.
    assert class_weights({1: 3, 2: 1}, Counter({1: 1, 2: 1}), ["1", "2"], "")[1] == 1.5


@pytest.mark.unit
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"urgnt": 1, "normal": 1, "spam": 1}, "'urgnt' is no label of the data; did you mean"),
        ({"urgent": 1, "normal": 1}, "has no weight for the label 'spam'"),
    ],
)
def test_weights_must_be_those_of_the_labels(given: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        class_weights(given, COUNTS, TEXTS, "config.yml")
    assert "regreason_class_weights" in str(error.value)


@pytest.mark.unit
@pytest.mark.parametrize("given", ["balance", {"a": 0}, {"a": "5"}, {"a": True}, {}, 3, ["a"]])
def test_a_wrong_form_is_refused(given: Any) -> None:
    cfg = {"regreason_class_weights": given, "regreason_loss_mean": "step"}
    with pytest.raises(UserError, match="must be balanced, or a number above 0 for each label"):
        check_class_weights(cfg, "config.yml")


@pytest.mark.unit
def test_axolotls_own_loss_is_refused() -> None:
    cfg = {"regreason_class_weights": "balanced"}
    with pytest.raises(UserError, match="needs regreason_loss_mean: step, or regreason_label_sh"):
        check_class_weights(cfg, "config.yml")
    check_class_weights({**cfg, "regreason_label_share": 0.5}, "config.yml")
    check_class_weights({**cfg, "regreason_loss_mean": "step"}, "config.yml")


@pytest.mark.unit
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_on_the_label_is_torchs_weighted_one(smoothing: float) -> None:
    """Torch weighs the classes of a whole vocabulary; here only label tokens have a weight."""
    place = LabelPosition(((7, 8), (7,), (6,)), first=True, numbers=(3, 1, 2))
    labels = torch.tensor([[IGNORE, 7, 8, 2], [IGNORE, 6, 9, 2], [IGNORE, 7, 9, IGNORE]])
    logits = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(0))
    weights = [5.0, 0.5, 2.0]
    sums = token_sums(logits, labels, place, smoothing, weights)
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none",
        label_smoothing=smoothing, ignore_index=IGNORE,
    ).view(3, 3)  # fmt: skip
    label = 5 * (losses[0, 0] + losses[0, 1]) + 2 * losses[1, 0] + 0.5 * losses[2, 0]
    other = losses[0, 2] + losses[1, 1] + losses[1, 2] + losses[2, 1]
    assert sums.label.item() == pytest.approx(label.item(), rel=1e-6)
    assert sums.other.item() == pytest.approx(other.item(), rel=1e-6)
    assert sums.counts.tolist() == [4, 4]
    loss = step_loss(sums, sums.counts, 0.3).item()
    assert loss == pytest.approx(0.3 * label.item() / 4 + 0.7 * other.item() / 4, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("accumulated", {"batch": 2, "gradient_accumulation_steps": 8}),
        ("packed", {"batch": 1, "sample_packing": True, "sequence_len": 8192}),
        pytest.param("two", {"batch": 8, "processes": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_weighted_step_is_the_same_however_it_is_cut(
    name: str, changes: dict[str, Any], train: Trainings
) -> None:
    whole = train("weighted whole", regreason_class_weights=WEIGHTS)
    found = train(f"weighted {name}", regreason_class_weights=WEIGHTS, **changes)
    same_log(found, whole)
    same_adapter(found.adapter(1), whole.adapter(1), 1e-5 * LEARNING_RATE)
    same_adapter(found.adapter(), whole.adapter())
    assert found.record["class_weights"] == WEIGHTS


def test_weights_change_what_is_learnt_but_not_how_it_is_logged(train: Trainings) -> None:
    plain, weighted = train("whole"), train("weighted whole", regreason_class_weights=WEIGHTS)
    first, other = plain.log()[0], weighted.log()[0]
    assert other["loss"] != pytest.approx(first["loss"], rel=1e-4)
    # Before the first step both are the same model, and the log has its plain losses.
    for name in ("label_loss", "explanation_loss"):
        assert other[name] == pytest.approx(first[name], rel=1e-6)
    assert (plain.folder / "adapter_model.safetensors").read_bytes() != (
        weighted.folder / "adapter_model.safetensors"
    ).read_bytes()
