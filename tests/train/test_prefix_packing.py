"""With prefix packing, a training computes what rows share once, and learns the same."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.axolotl import PYTHON, ROOT, axolotl_train
from helpers.model_zoo import PACKED, PLAIN, random_model
from helpers.step_training import (
    LEARNT,
    STEPS,
    Trained,
    Trainings,
    same_adapter,
    same_log,
)
from helpers.tiny_families import save_family
from helpers.training_data import write_config
from torch import Tensor, nn

from regreason_plugin.probes.head import head_at
from regreason_plugin.train.families import TokenRow, find_families
from regreason_plugin.train.packed_batch import PackedBatch, pack
from regreason_plugin.train.prefix_packing import PackingCheckCallback
from regreason_plugin.train.target_logits import kept_positions

pytestmark = pytest.mark.e2e

IGNORE = -100
AXES = ("naturalness", "comprehensiveness", "on_topic")
TEXTS = ["rain", "ha " * 20, "a"]
ON = {"regreason_prefix_packing": True}
SAMPLES = {"sample_packing": True, "micro_batch_size": 1, "sequence_len": 16384}


# --- one batch, on many families ------------------------------------------------------------


def batch(packed: bool = False, branches: int = 3) -> dict[str, Tensor]:
    """Four conversations with several questions each: padded rows, or samples in one row."""
    draw = random.Random(0)

    def tokens(least: int, most: int) -> list[int]:
        return [draw.randrange(3, 300) for _ in range(draw.randrange(least, most))]

    rows = []
    for _ in range(4):
        conversation = [1, *tokens(20, 60)]
        rows += [([*conversation, *tokens(4, 9)], [*tokens(2, 12), 2]) for _ in range(branches)]
    ids = [[*prompt, *target] for prompt, target in rows]
    labels = [[IGNORE] * len(prompt) + target for prompt, target in rows]
    if packed:
        return {
            "input_ids": torch.tensor([list(chain(*ids))]),
            "labels": torch.tensor([list(chain(*labels))]),
            "position_ids": torch.tensor([[at for row in ids for at in range(len(row))]]),
        }
    longest = max(map(len, ids))
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
        "labels": torch.tensor([row + [IGNORE] * (longest - len(row)) for row in labels]),
        "attention_mask": torch.tensor(mask),
    }


def without_dropout(family: str) -> nn.Module:
    model = random_model(family)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model.train()


def packed_output(model: nn.Module, inputs: dict[str, Tensor], found: PackedBatch) -> Any:
    rows, columns = kept_positions(inputs["labels"])
    labels = inputs["labels"][rows, columns][None]
    at = found.rows[rows, columns], found.columns[rows, columns]
    with found.within, head_at(model, found.inputs["input_ids"].shape, *at):
        return model(**found.inputs, labels=labels)


@pytest.mark.integration
@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("samples_in_a_row", [False, True])
def test_loss_and_gradients_are_those_of_plain_rows(family: str, samples_in_a_row: bool) -> None:
    if samples_in_a_row and family == "opt":
        pytest.skip("transformers' OPT takes no position ids of packed samples")
    model, inputs = without_dropout(family), batch(samples_in_a_row)
    plain = model(**inputs, use_cache=False).loss
    plain.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = pack(inputs, model)
    assert found is not None
    assert found.tokens < 0.55 * int((inputs.get("attention_mask", inputs["input_ids"]) > 0).sum())
    output = packed_output(model, inputs, found)
    output.loss.backward()
    assert output.logits.shape[1] == len(kept_positions(inputs["labels"])[0])
    assert output.loss.item() == pytest.approx(plain.item(), rel=1e-6)
    largest = max(float(one.abs().max()) for one in expected.values())
    for name, parameter in model.named_parameters():
        if name in expected:
            assert parameter.grad is not None
            assert float((parameter.grad - expected[name]).abs().max()) < 1e-5 * largest, name


@pytest.mark.integration
@pytest.mark.parametrize("samples_in_a_row", [False, True])
def test_a_branch_sees_no_other(samples_in_a_row: bool) -> None:
    """Other tokens in one branch change the logits of that branch only."""
    model = random_model("llama").eval()
    inputs = batch(samples_in_a_row)
    rows, columns = kept_positions(inputs["labels"])
    found = pack(inputs, model)
    assert found is not None
    before = packed_output(model, inputs, found).logits[0]
    # The targets of the second row of the first conversation.
    runs = (inputs["labels"][rows, columns] == IGNORE).cumsum(dim=0)
    chosen = runs == 2
    changed = {name: one.clone() for name, one in inputs.items()}
    at = rows[chosen][1:], columns[chosen][1:]
    changed["input_ids"][at] = (changed["input_ids"][at] + 1) % 300 + 3
    changed["labels"][at] = changed["input_ids"][at]
    again = pack(changed, model)
    assert again is not None
    after = packed_output(model, changed, again).logits[0]
    off = (after - before).abs().amax(dim=-1)
    assert float(off[~chosen].max()) < 1e-4
    # (The first position of the run comes before the changed tokens.)
    assert float(off[chosen][1:].min()) > 1e-2


@pytest.mark.integration
def test_a_batch_that_shares_nothing_stays_as_it_is() -> None:
    assert pack(batch(branches=1), random_model("llama")) is None
    assert pack(batch(packed=True, branches=1), random_model("llama")) is None


# --- the check before the first step ------------------------------------------------------


def start(model: nn.Module) -> None:
    """Start a training of this model, up to its first step."""
    inputs = batch()
    rows = []
    for number, (ids, labels) in enumerate(zip(inputs["input_ids"], inputs["labels"], strict=True)):
        at = (labels != IGNORE).nonzero()[:, 0]
        tokens = ids[: int(at[-1]) + 1].numpy().astype(np.int32)
        rows.append(TokenRow(tokens, int(at[0]), ("coqa", str(number // 3)), str(number // 3)))
    trainer = SimpleNamespace(
        model=model,
        families=find_families(rows, most_rows=6),
        accelerator=SimpleNamespace(autocast=nullcontext, mixed_precision="no"),
        axolotl_cfg=SimpleNamespace(axolotl_config_path="config.yml"),
    )
    arguments = SimpleNamespace(device=torch.device("cpu"))
    PackingCheckCallback(trainer, rows).on_train_begin(arguments, None, None)


@pytest.mark.integration
@pytest.mark.parametrize("family", PACKED)
def test_a_model_that_reads_packed_rows_may_train(family: str) -> None:
    model = random_model(family).train()
    start(model)
    assert model.training


@pytest.mark.integration
@pytest.mark.parametrize("family", [one for one in PLAIN if one != "mamba2"])
def test_a_model_that_does_not_is_refused(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = random_model(family)
    with pytest.raises(SystemExit) as stopped:
        start(model)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()
    (line,) = [one for one in said if "regreason_prefix_packing" in one]
    assert line.startswith("regreason: config.yml")
    assert f"{type(model).__name__} cannot train on several prompts in one row (" in line


# --- trainings ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainings(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    folder = tmp_path_factory.mktemp("prefix_packing")
    return Trainings(tiny_model, folder, TEXTS, AXES)


# Each is trained with and without prefix packing; a step reads all rows, so both read the same.
WAYS: dict[str, dict[str, Any]] = {
    "mistral": {"regreason_label_share": None},
    "qwen3": {**SAMPLES, "regreason_label_smoothing": 0.2},
    "llama3": {
        "micro_batch_size": 12,
        "gradient_accumulation_steps": 4,
        "gradient_checkpointing": True,
    },
}


@pytest.fixture(scope="module")
def runs(
    trainings: Trainings, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trained]:
    folder = tmp_path_factory.mktemp("runs")
    assert trainings.rows == 48
    pairs = []
    for name, way in WAYS.items():
        model = save_family(name, tiny_model, folder / name)
        for packs in (True, False):
            changes = {
                "base_model": str(model),
                "micro_batch_size": trainings.rows,
                **way,
                "regreason_prefix_packing": packs,
                "output_dir": str(folder / f"{name} {packs}" / "{arm}"),
            }
            if not packs:
                # One batch of all rows is the same step, however packing divides it.
                changes |= {"gradient_accumulation_steps": 1}
                if not way.get("sample_packing"):
                    changes |= {"micro_batch_size": trainings.rows}
            pairs.append(changes)
    everywhere = {"eval_strategy": "steps", "eval_steps": STEPS}
    file = trainings.config("all", trainings.rows, **everywhere)
    sweep = write_config(folder / "sweep.yml", {"_": pairs})
    done = axolotl_train(file, "--sweep", sweep, PYTHON, cwd=folder, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        f"{name} {packs}": Trained(folder / f"{name} {packs}" / "explanation")
        for name in WAYS
        for packs in (True, False)
    }


@pytest.mark.parametrize("way", WAYS)
def test_a_training_learns_the_same(way: str, runs: dict[str, Trained]) -> None:
    found, plain = runs[f"{way} True"], runs[f"{way} False"]
    ours, theirs = found.log(), plain.log()
    assert [one["step"] for one in ours] == list(range(1, STEPS + 1))
    for name in LEARNT:
        assert ours[0][name] == pytest.approx(theirs[0][name], rel=1e-6, abs=1e-6), name
    # With gradient descent from zero, the change in the first step is the gradient.
    gradients = plain.adapter(1)
    largest = max(float(one.abs().max()) for name, one in gradients.items() if "lora_B" in name)
    same_adapter(found.adapter(1), gradients, 1e-5 * largest)
    same_log(found, plain)
    seen = ("label_tokens_seen", "target_tokens_seen")
    assert [[one[name] for name in seen] for one in ours] == [
        [one[name] for name in seen] for one in theirs
    ]


@pytest.mark.parametrize("way", WAYS)
def test_an_evaluation_says_the_same(way: str, runs: dict[str, Trained]) -> None:
    ours, theirs = (
        [json.loads(one) for one in (runs[f"{way} {packs}"].folder / "log.jsonl").open()]
        for packs in (True, False)
    )
    ours, theirs = ([one for one in lines if "eval_loss" in one] for lines in (ours, theirs))
    names = [one for one in theirs[-1] if one.startswith(("eval_loss", "eval_label", "eval_expl"))]
    assert len(names) >= 4
    for one, other in zip(ours, theirs, strict=True):
        for name in names:
            assert one[name] == pytest.approx(other[name], rel=1e-5), name


@pytest.mark.parametrize("way", WAYS)
def test_the_record_counts_the_tokens_that_were_read(way: str, runs: dict[str, Trained]) -> None:
    ours, theirs = (runs[f"{way} {packs}"].record for packs in (True, False))
    assert ours["prefix_packing"] is True
    assert theirs["prefix_packing"] is None
    assert ours["cost"]["tokens"] < 0.92 * theirs["cost"]["tokens"]


@pytest.mark.slow
def test_twenty_steps_at_the_shipped_rate_learn_the_same(trainings: Trainings) -> None:
    shipped = yaml.safe_load((ROOT / "axolotl_configs/cpu/lora.yml").read_text())
    twenty = {
        **{"max_steps": 20, "num_epochs": 20, "save_strategy": "no", "save_steps": None},
        **{key: shipped[key] for key in ("learning_rate", "optimizer", "lr_scheduler")},
        "optim_args": None,
    }
    packed, plain = (trainings(f"twenty {bool(on)}", **twenty, **on) for on in (ON, {}))
    assert packed.record["steps"] == 20
    # B starts at zero, so it is the update.
    updates, expected = (
        torch.cat([one.flatten() for name, one in run.adapter().items() if "lora_B" in name])
        for run in (packed, plain)
    )
    assert float((updates - expected).norm()) < 1e-3 * float(expected.norm())


@pytest.mark.slow
def test_two_processes_learn_the_same(trainings: Trainings, runs: dict[str, Trained]) -> None:
    """A step of 2 processes x 24 rows is the step of one process with all 48."""
    one = trainings("one", **ON)
    two = trainings("two", processes=2, batch=24, **ON)
    assert two.record["processes"] == 2
    same_log(two, one)
    same_adapter(two.adapter(), one.adapter())


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_deepspeed_learns_the_same(stage: int, trainings: Trainings) -> None:
    file = ROOT / f"axolotl_configs/deepspeed/zero{stage}.json"
    one = trainings("one", **ON)
    found = trainings(f"zero{stage}", processes=2, batch=24, deepspeed=str(file), **ON)
    same_log(found, one)
    same_adapter(found.adapter(), one.adapter(), 5e-5)


@pytest.mark.slow
def test_a_resumed_training_is_the_uninterrupted_one(trainings: Trainings) -> None:
    whole = trainings("resumed", batch=24, auto_resume_from_checkpoints=True, **ON)
    uninterrupted, log, read = whole.adapter(), whole.log(), whole.record["cost"]["tokens"]
    shutil.rmtree(whole.folder / f"checkpoint-{STEPS}")
    (whole.folder / "adapter_model.safetensors").unlink()
    file = whole.folder.parent / "config.yml"
    done = axolotl_train(file, PYTHON, cwd=file.parent, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["loss"] for line in whole.log()] == [line["loss"] for line in log]
    found = whole.adapter()
    assert all(torch.equal(values, uninterrupted[name]) for name, values in found.items())
    assert found.keys() == uninterrupted.keys()
    # Counted once, although one step was computed twice.
    assert whole.record["cost"]["tokens"] == read
