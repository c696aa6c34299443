"""The same optimizer step: batched, accumulated, packed, on one process and on two.

With a label share, every way gives the same step, and plain torch gives it as well. Exit code and
adapter files prove nothing: two processes on a CPU once trained on the same rows each, exited with
0 and saved an adapter. So these tests compare losses and adapter with those of one process that
reads the same rows per step.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers.axolotl import ROOT, train_with_two_processes
from helpers.step_training import (
    LEARNING_RATE,
    PLUGINS,
    SHARE,
    STEPS,
    TORCHRUN,
    Trained,
    Trainings,
    launched,
    same_adapter,
    same_log,
    same_training,
    waits,
)
from helpers.training_data import read_rows
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

pytestmark = pytest.mark.e2e


def test_a_step_is_that_of_plain_torch(train: Trainings, tiny_model: Path) -> None:
    """Loss and gradient, token by token; B starts at zero, so it becomes -lr x gradient."""
    whole = train("whole")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model), whole.folder / "checkpoint-1",
        is_trainable=True,
    )  # fmt: skip
    weights = {name: value for name, value in model.named_parameters() if "lora_B" in name}
    after = {name: value.detach().clone() for name, value in weights.items()}
    with torch.no_grad():
        for value in weights.values():
            value.zero_()
    label, other = [], []
    for row in read_rows(train.data.path, "train/explanation.jsonl"):
        prompt, target = (turn["content"] for turn in row["messages"])
        start = tokenizer(prompt).input_ids
        ids = [*tokenizer(f"{prompt} {target}").input_ids, tokenizer.eos_token_id]
        until = len(tokenizer(f"{prompt} {row['label']}").input_ids)
        losses = torch.nn.functional.cross_entropy(
            model(torch.tensor([ids[:-1]])).logits[0], torch.tensor(ids[1:]), reduction="none"
        )
        label += losses[len(start) - 1 : until - 1]
        other += losses[until - 1 :]
    loss = SHARE * torch.stack(label).mean() + (1 - SHARE) * torch.stack(other).mean()
    first = whole.log()[0]
    assert first["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert first["label_loss"] == pytest.approx(float(torch.stack(label).mean()), rel=1e-5)
    assert first["explanation_loss"] == pytest.approx(float(torch.stack(other).mean()), rel=1e-5)
    assert first["label_tokens_seen"] == len(label)
    assert first["target_tokens_seen"] == len(label) + len(other)
    loss.backward()
    for name, value in weights.items():
        assert value.grad is not None
        gradient = (after[name] - 0) / -LEARNING_RATE
        assert torch.allclose(gradient, value.grad, atol=1e-5), name
    assert max(float(value.abs().max()) for value in after.values()) > 1e-3


def test_a_config_without_a_seed_trains_with_trainers_own(train: Trainings) -> None:
    assert train("no seed", seed=None).record["seed"] == TrainingArguments("").seed


def test_label_smoothing_is_torchs(train: Trainings, tiny_model: Path) -> None:
    smoothed = train("smoothed", regreason_label_share=None, regreason_label_smoothing=0.5)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    losses, plain = [], []
    with torch.no_grad():
        for row in read_rows(train.data.path, "train/explanation.jsonl"):
            prompt, target = (turn["content"] for turn in row["messages"])
            ids = [*tokenizer(f"{prompt} {target}").input_ids, tokenizer.eos_token_id]
            start = len(tokenizer(prompt).input_ids)
            logits = model(torch.tensor([ids[:-1]])).logits[0, start - 1 :]
            wanted = torch.tensor(ids[start:])
            for smoothing, found in ((0.5, losses), (0.0, plain)):
                found += torch.nn.functional.cross_entropy(
                    logits, wanted, reduction="none", label_smoothing=smoothing
                )
    expected, unsmoothed = (float(torch.stack(found).mean()) for found in (losses, plain))
    # At first, the adapter changes nothing.
    assert smoothed.log()[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert abs(expected - unsmoothed) > 0.05
    record = smoothed.record
    assert (record["label_share"], record["label_smoothing"]) == (None, 0.5)


def test_a_chat_model_has_its_label_found_too(train: Trainings, tiny_model: Path) -> None:
    path = f"{train.data.path}/train/{{arm}}.jsonl"
    entry = {"type": "chat_template", "field_messages": "messages", "ds_type": "json"}
    # The tokenizer's ChatML lacks the beginning-of-text token that lm-eval adds.
    template = "{{ bos_token }}" + AutoTokenizer.from_pretrained(tiny_model).chat_template
    found = train(
        "chat",
        datasets=[{"path": path, **entry}],
        test_datasets=None,
        chat_template="jinja",
        chat_template_jinja=template,
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = read_rows(train.data.path, "train/explanation.jsonl")
    # A turn begins with its label, without a space before it.
    labels = [tokenizer.encode(str(row["label"]), add_special_tokens=False) for row in rows]
    assert found.log()[0]["label_tokens_seen"] == sum(map(len, labels))
    whole = train("whole").log()[0]
    assert found.log()[0]["label_loss"] != pytest.approx(whole["label_loss"], rel=1e-5)
    assert found.log()[-1]["label_loss"] < found.log()[0]["label_loss"]


@pytest.mark.parametrize(
    "name",
    [
        "accumulated",
        "packed",
        pytest.param("two processes", marks=pytest.mark.slow),
        "zero1",
        "zero2",
    ],
)
def test_the_same_step_in_other_ways(train: Trainings, name: str) -> None:
    whole, rows = train("whole"), train.rows
    if name == "accumulated":
        found = train(name, batch=rows // 4, gradient_accumulation_steps=4)
    elif name == "packed":
        found = train(name, batch=1, sample_packing=True, sequence_len=4096)
    elif name == "two processes":
        found = train(
            name, *TORCHRUN, batch=rows // 4, gradient_accumulation_steps=2, plugins=PLUGINS
        )
    else:
        found = train(
            name, processes=2, batch=rows // 2, deepspeed=deepspeed(name), plugins=PLUGINS
        )
        holds_engine_files(found, STEPS)
    same_training(found, whole)
    same_adapter(found.adapter(), whole.adapter())
    assert found.record["label_share"] == SHARE
    several = name.startswith(("two", "zero"))
    assert found.record["processes"] == (2 if several else 1)
    if several:
        the_ranks_read_different_rows(found, train)


@pytest.mark.slow
def test_zero3_killed_goes_on_from_its_checkpoint(train: Trainings) -> None:
    """A training that is killed after three steps, and resumed from the checkpoint of step two."""
    whole = train("whole")
    config = train.config(
        "zero3",
        train.rows // 2,
        deepspeed=deepspeed("zero3"),
        plugins=PLUGINS,
        auto_resume_from_checkpoints=True,
    )
    command = ["axolotl", "train", str(config), *TORCHRUN]
    with launched(command, config.with_name("killed"), WAIT="3 0 1") as running:
        for process in [waits(config, rank, [running]) for rank in (0, 1)]:
            os.kill(process, signal.SIGKILL)
        assert running.wait(60) == 1
    found = Trained(config.parent / "model")
    assert not (found.folder / "regreason.json").exists()
    same_training(found, whole)
    the_ranks_read_different_rows(found, train)
    uninterrupted, read = found.adapter(STEPS), len(found.rows(0))

    shutil.rmtree(found.folder / f"checkpoint-{STEPS}")
    holds_engine_files(found, STEPS - 1)
    train_with_two_processes(config, cwd=config.parent)
    assert len(found.rows(0)) == read + 1  # batch: the training did not start again
    same_log(found, whole)
    adapter = found.adapter()
    assert adapter.keys() == uninterrupted.keys()
    assert all(torch.equal(values, uninterrupted[name]) for name, values in adapter.items())
    assert (found.record["processes"], found.record["steps"]) == (2, STEPS)


def deepspeed(name: str) -> str:
    return str(ROOT / "axolotl_configs" / "deepspeed" / f"{name}.json")


def holds_engine_files(found: Trained, step: int) -> None:
    """Assert that DeepSpeed wrote a checkpoint."""
    checkpoint = found.folder / f"checkpoint-{step}"
    assert (checkpoint / "latest").read_text() == f"global_step{step}"
    states = list((checkpoint / f"global_step{step}").glob("*optim_states.pt"))
    assert len(states) == 2  # one per rank


def the_ranks_read_different_rows(found: Trained, train: Trainings) -> None:
    """Assert that in each epoch two ranks read half of the train rows each, and no row twice."""
    tokenizer = AutoTokenizer.from_pretrained(train.model)
    rows = [
        [*tokenizer(" ".join(turn["content"] for turn in row["messages"])).input_ids,
         tokenizer.eos_token_id]
        for row in read_rows(train.data.path, "train/explanation.jsonl")
    ]  # fmt: skip
    half = len(rows) // 2
    ranks = [[ids for batch in found.rows(rank) for ids in batch] for rank in (0, 1)]
    assert [len(read) for read in ranks] == [half * STEPS] * 2
    for start in range(0, half * STEPS, half):
        together = [ids for read in ranks for ids in read[start : start + half]]
        assert sorted(together) == sorted(rows)


def test_without_a_share_the_training_is_axolotls(train: Trainings) -> None:
    """The adapter is that of Axolotl's own trainer, bit for bit."""
    own = {
        "optimizer": "adamw_torch",
        "learning_rate": 0.01,
        "max_grad_norm": 1.0,
        "regreason_target_logits": False,
    }
    changes = {"regreason_label_share": None, "batch": 4, **own}
    ours = train("ours", **changes)
    axolotls = train("axolotls", plugins=["helpers.plain_plugin.RegReasonPlugin"], **changes)
    assert "label_loss" in ours.log()[0]
    assert "label_loss" not in axolotls.log()[0]
    for step, (one, other) in enumerate(zip(ours.log(), axolotls.log(), strict=True)):
        assert one["loss"] == other["loss"], step
    adapter, other = ours.adapter(), axolotls.adapter()
    assert adapter.keys() == other.keys()
    assert all(torch.equal(values, other[name]) for name, values in adapter.items())
    # The mean over all tokens is the two means, weighted by their numbers of tokens.
    first = ours.log()[0]
    part = first["label_tokens_seen"] / first["target_tokens_seen"]
    mean = part * first["label_loss"] + (1 - part) * first["explanation_loss"]
    assert first["loss"] == pytest.approx(mean, rel=1e-5)
