"""One optimizer step made in many ways: batched, accumulated, packed, on one process and two.

With a label share it is the same step, and that of plain torch. Two processes on a CPU once
trained on the same rows each, exited with 0 and saved an adapter; so what is asserted is what
only the real thing has: the losses and the adapter of one process with the same rows a step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_train import ROOT, axolotl_train
from training_data import build_data, config, read_rows, write_config
from transformers import AutoModelForCausalLM, AutoTokenizer

SHARE = 0.3
STEPS = 3
LEARNING_RATE = 0.5
TWO = ("--launcher", "torchrun", "--", "--nproc_per_node=2")


@dataclass(frozen=True)
class Trained:
    """What a training printed and left."""

    output: str
    folder: Path

    @cached_property
    def log(self) -> list[dict[str, float]]:
        """The lines of the log, one a step."""
        lines = re.findall(r"\{'loss'.*?\}", self.output)
        return [
            {name: float(value) for name, value in re.findall(r"'([^']+)': '?([-\d.e+]+)'?", line)}
            for line in lines
        ]

    def adapter(self, checkpoint: str = "") -> dict[str, torch.Tensor]:
        return load_file(self.folder / checkpoint / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def train(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    """Trains three steps of all rows each, by name and with changes; each name once."""
    folder = tmp_path_factory.mktemp("processes")
    data = build_data(folder / "data", rows=24)
    rows = data.manifest.counts["train"].rows
    assert rows % 4 == 0
    done: dict[str, Trained] = {}

    def run(name: str, *arguments: str, batch: int = rows, **changes: Any) -> Trained:
        if name not in done:
            values = config(
                tiny_model,
                data.path,
                folder / name,
                regreason_label_share=SHARE,
                output_dir=str(folder / name / "model"),
                micro_batch_size=batch,
                max_steps=STEPS,
                regreason_budget="steps",
                num_epochs=STEPS,
                logging_steps=1,
                save_strategy="steps",
                save_steps=1,
            )
            # A step of plain gradient descent is the gradient.
            values |= {"optimizer": "sgd", "learning_rate": LEARNING_RATE, "max_grad_norm": 1e6}
            values |= changes
            file = write_config(folder / f"{name}.yml", values)
            launcher = arguments or ("--launcher", "python")
            # (DeepSpeed's first run with several processes compiles a library.)
            found = axolotl_train(file, *launcher, cwd=folder, timeout=800)
            assert found.returncode == 0, found.stderr[-4000:]
            done[name] = Trained(found.stdout + found.stderr, folder / name / "model")
        return done[name]

    run.rows = rows  # type: ignore[attr-defined]
    run.data = data  # type: ignore[attr-defined]
    return run


def same(found: Trained, expected: Trained, checkpoint: str = "") -> None:
    assert len(found.log) == len(expected.log) == STEPS
    for ours, theirs in zip(found.log, expected.log, strict=True):
        for name in ("loss", "grad_norm", "label_loss", "explanation_loss", "label_acc",
                     "label_tokens_seen", "target_tokens_seen"):  # fmt: skip
            assert ours[name] == pytest.approx(theirs[name], rel=2e-4), name
    adapter, other = found.adapter(checkpoint), expected.adapter(checkpoint)
    assert adapter.keys() == other.keys()
    for name, values in adapter.items():
        assert torch.allclose(values, other[name], atol=1e-5), name


def test_a_step_is_that_of_plain_torch(train: Any, tiny_model: Path) -> None:
    """Loss and gradient, token by token; the adapter's B starts at zero, so it is -lr x its own."""
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
    first = whole.log[0]
    assert first["loss"] == pytest.approx(float(loss), rel=1e-3)
    assert first["label_loss"] == pytest.approx(float(torch.stack(label).mean()), rel=1e-3)
    assert first["explanation_loss"] == pytest.approx(float(torch.stack(other).mean()), rel=1e-3)
    assert first["label_tokens_seen"] == len(label)
    assert first["target_tokens_seen"] == len(label) + len(other)
    loss.backward()
    for name, value in weights.items():
        assert value.grad is not None
        gradient = (after[name] - 0) / -LEARNING_RATE
        assert torch.allclose(gradient, value.grad, atol=1e-5), name
    assert max(float(value.abs().max()) for value in after.values()) > 1e-3


def test_label_smoothing_is_torchs(train: Any, tiny_model: Path) -> None:
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
    # (The adapter changes nothing at first.)
    assert smoothed.log[0]["loss"] == pytest.approx(expected, rel=1e-3)
    assert abs(expected - unsmoothed) > 0.05
    record = json.loads((smoothed.folder / "regreason.json").read_text())
    assert (record["label_share"], record["label_smoothing"]) == (None, 0.5)


def test_a_chat_model_has_its_label_found_too(train: Any, tiny_model: Path) -> None:
    path = f"{train.data.path}/train/{{arm}}.jsonl"
    entry = {"type": "chat_template", "field_messages": "messages", "ds_type": "json"}
    # (ChatML as the tokenizer has it begins without the beginning of text that lm-eval adds.)
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
    # A turn begins with its label, with no space before it.
    labels = [tokenizer.encode(str(row["label"]), add_special_tokens=False) for row in rows]
    assert found.log[0]["label_tokens_seen"] == sum(map(len, labels))
    whole = train("whole").log[0]
    assert found.log[0]["label_loss"] != pytest.approx(whole["label_loss"], rel=1e-3)
    assert found.log[-1]["label_loss"] < found.log[0]["label_loss"]


@pytest.mark.parametrize(
    "name", ["accumulated", "packed", "two processes", "zero1", "zero2", "zero3"]
)
def test_the_same_step_in_other_ways(train: Any, name: str) -> None:
    whole, rows = train("whole"), train.rows
    if name == "accumulated":
        found = train(name, batch=rows // 4, gradient_accumulation_steps=4)
    elif name == "packed":
        found = train(name, batch=1, sample_packing=True, sequence_len=4096)
    elif name == "two processes":
        found = train(name, *TWO, batch=rows // 4, gradient_accumulation_steps=2)
    else:
        file = ROOT / "axolotl_configs" / "deepspeed" / f"{name}.json"
        found = train(name, *TWO, batch=rows // 2, deepspeed=str(file))
        # The engine's own files, which no other training leaves.
        checkpoint = found.folder / "checkpoint-3"
        assert (checkpoint / "latest").read_text() == "global_step3"
        states = list((checkpoint / "global_step3").glob("*optim_states.pt"))
        assert len(states) == 2  # a rank each
    same(found, whole)
    record = json.loads((found.folder / "regreason.json").read_text())
    assert record["processes"] == (2 if name.startswith(("two", "zero")) else 1)
    assert record["label_share"] == SHARE


def test_without_a_share_the_training_is_axolotls(train: Any) -> None:
    """Bit for bit the adapter of Axolotl's own trainer, in small steps with a common optimizer."""
    own = {"optimizer": "adamw_torch", "learning_rate": 0.01, "max_grad_norm": 1.0}
    changes = {"regreason_label_share": None, "batch": 4, **own}
    ours = train("ours", **changes)
    axolotls = train("axolotls", plugins=["plain_plugin.RegReasonPlugin"], **changes)
    assert "label_loss" in ours.log[0]
    assert "label_loss" not in axolotls.log[0]
    for step, (one, other) in enumerate(zip(ours.log, axolotls.log, strict=True)):
        assert one["loss"] == other["loss"], step
    adapter, other = ours.adapter(), axolotls.adapter()
    assert adapter.keys() == other.keys()
    assert all(torch.equal(values, other[name]) for name, values in adapter.items())
    # A mean over all tokens is the two means, weighed by their tokens.
    first = ours.log[0]
    part = first["label_tokens_seen"] / first["target_tokens_seen"]
    mean = part * first["label_loss"] + (1 - part) * first["explanation_loss"]
    assert first["loss"] == pytest.approx(mean, rel=1e-3)
