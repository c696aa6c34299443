"""Logs and files of a training: probes, curves, budgets, packed rows, a resume.

One command, a sweep, makes all runs on one process. A run then takes one second, not twenty.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.axolotl import PYTHON, ROOT, axolotl_train, forks, train_with_two_processes
from helpers.scoring import PlainScorer
from helpers.training_data import build_data, config, read_rows, write_config
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.predict.classifier import Classifier
from regreason_plugin.probes import measure

pytestmark = pytest.mark.e2e

# Its tokenizer has one token per label; the random model's has two tokens for one of them.
TINY_BASE = ROOT / "axolotl_configs/cpu/tiny-base"
# Keys of the run with probes, and of the run that is killed.
EVERY = 5
SAVED = 20
PROBES = {"regreason_probe_steps": EVERY, "regreason_probe_rows": 3}
LONG = {
    "num_epochs": 3,
    "lora_dropout": 0.2,
    "lr_scheduler": "cosine",
    "save_strategy": "steps",
    "save_steps": SAVED,
    "eval_steps": 15,
    "load_best_model_at_end": False,
}
TOKENS = 700
BY_TOKENS = {
    "regreason_budget": "tokens",
    "regreason_target_tokens": TOKENS,
    "num_epochs": None,
    "lr_scheduler": "cosine",
    "eval_strategy": "no",
}
# With few rows per pack, Axolotl's number of packs differs between shuffled epochs.
PACKED = {
    "micro_batch_size": 1,
    "sequence_len": 700,
    "sample_packing": True,
    "eval_sample_packing": False,
    "eval_batch_size": 2,
    "eval_strategy": "epoch",
    "num_epochs": 4,
}


class Trained:
    """The files in a training's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        return self.lines("log.jsonl")

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_bytes().splitlines()]

    def of(self, key: str) -> dict[int, dict[str, Any]]:
        """Lines with a key, by step; a step has one such line."""
        lines = [line for line in self.log if key in line]
        found = {line["step"]: line for line in lines}
        assert len(found) == len(lines)
        return found

    @cached_property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "regreason.json").read_text())
        return found

    def adapter(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """45 train rows, a number that no batch size here divides, and 5 validation rows."""
    folder = build_data(tmp_path_factory.mktemp("loop") / "data", rows=68)
    assert [folder.manifest.counts[split].rows for split in ("train", "validation")] == [45, 5]
    return folder


@pytest.fixture(scope="module")
def base(data: DataFolder, tiny_model: Path) -> dict[str, Any]:
    """The config from which all runs are made."""
    return config(tiny_model, data.path, data.path.parent, logging_steps=1)


@pytest.fixture(scope="module")
def runs(base: dict[str, Any], data: DataFolder) -> dict[str, Trained]:
    folder = data.path.parent
    changes: dict[str, dict[str, Any]] = {
        "probed": {**LONG, **PROBES, "use_tensorboard": True},
        "unprobed": LONG,
        "tokens explanation": BY_TOKENS,
        "tokens label_only": {**BY_TOKENS, "regreason_arm": "label_only"},
        "packed": PACKED,
        "single tokens": {"base_model": str(TINY_BASE), "eval_strategy": "epoch"},
    }
    pairs = [
        {**values, "output_dir": str(folder / name / "{arm}")} for name, values in changes.items()
    ]
    file = write_config(folder / "base.yml", base)
    sweep = write_config(folder / "sweep.yml", {"_": pairs})
    done = axolotl_train(file, "--sweep", sweep, PYTHON, cwd=folder, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for name, values in changes.items():
        arm = values.get("regreason_arm", "explanation")
        found[name] = Trained(folder / name / arm)
        assert found[name].record["arm"] == arm
    return found


def target_tokens(data: DataFolder, model: Path, arm: str = "explanation") -> list[int]:
    """Number of tokens after the prompt in each train row, the end of text included."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = [len(tokenizer(prompt).input_ids) for prompt, _ in _texts(data, arm)]
    whole = all_tokens(data, model, arm)
    return [count - prompt for count, prompt in zip(whole, prompts, strict=True)]


def all_tokens(data: DataFolder, model: Path, arm: str = "explanation") -> list[int]:
    """Number of tokens in each train row, prompt and target."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    return [
        len(tokenizer(f"{prompt} {target}").input_ids) + 1 for prompt, target in _texts(data, arm)
    ]


def _texts(data: DataFolder, arm: str) -> list[tuple[str, str]]:
    rows = [row["messages"] for row in read_rows(data.path, f"train/{arm}.jsonl")]
    return [(asked["content"], answered["content"]) for asked, answered in rows]


def test_probes_are_those_of_the_checkpoint(
    runs: dict[str, Trained], data: DataFolder, tiny_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = read_rows(data.path, "validation/explanation.jsonl")
    rows.sort(key=lambda row: hashlib.sha256(f"{row['id']}\n{row['axis']}".encode()).hexdigest())
    prompts = [tokenizer(row["messages"][0]["content"]).input_ids for row in rows[:3]]
    choices = [tokenizer(f"Assessment: {label}").input_ids[-1] for label in (1, 2, 3, 5)]
    choices.append(227)  # " 4" has two tokens in this tokenizer; the labels differ at the space
    assert tokenizer("Assessment: 4").input_ids[-2] == choices[-1]
    run = runs["probed"]
    logged = run.of("probe/output_entropy")
    by_layer = {line["step"]: line for line in run.lines("probes.jsonl")}
    assert list(logged) == list(by_layer) == [*range(0, 36, EVERY), 36]
    for step, checkpoint in ((0, None), (SAVED, f"checkpoint-{SAVED}"), (36, ".")):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        if checkpoint:
            model = PeftModel.from_pretrained(model, run.folder / checkpoint)
        found = [measure(model, torch.tensor([one]), choices=choices)[0] for one in prompts]
        for name in ("output_entropy", "label_entropy", "logit_lens_entropy_mid",
                     "activation_entropy_mid", "activation_entropy_square_mid"):  # fmt: skip
            expected = sum(one[name] for one in found) / 3
            assert logged[step][f"probe/{name}"] == pytest.approx(expected, rel=1e-5), name
            assert by_layer[step][name] == logged[step][f"probe/{name}"]
        for name in ("activation_entropy_by_layer", "logit_lens_entropy_by_layer"):
            layers = [sum(values) / 3 for values in zip(*(one[name] for one in found), strict=True)]
            assert by_layer[step][name] == pytest.approx(layers, rel=1e-5)
    assert abs(logged[0]["probe/output_entropy"] - logged[36]["probe/output_entropy"]) > 0.1
    assert {line["prompts_sha256"] for line in by_layer.values()} == {
        hashlib.sha256(json.dumps([prompts, [choices[at] for at in (0, 1, 2, 4, 3)]]).encode())
        .hexdigest()
    }  # fmt: skip


def test_the_accuracy_of_labels_is_that_of_scoring(
    runs: dict[str, Trained], data: DataFolder
) -> None:
    """With one token per label, `regreason` scores the same accuracy as transformers alone."""
    run = runs["single tokens"]
    last = list(run.of("eval_label_acc").values())[-1]
    assert last["step"] == run.record["steps"]
    rows = read_rows(data.path, "validation/explanation.jsonl")
    scorer = PlainScorer(TINY_BASE, run.folder)
    classifier = Classifier(
        f"pretrained={TINY_BASE},peft={run.folder},dtype=float32",
        data.path,
        setting=("coqa", "on_topic"),
        device="cpu",
    )
    ratings = data.path.with_name(f"{data.path.name}.ratings.jsonl").read_text().splitlines()
    talks = {row["id"]: row for row in map(json.loads, ratings)}
    fields = ("id", "dataset", "group", "conversation")
    predicted = classifier([{key: talks[row["id"]][key] for key in fields} for row in rows])
    right = []
    for row, ours in zip(rows, predicted, strict=True):
        scores = scorer.labels(row["messages"][0]["content"])
        likeliest = scores.index(max(scores)) + 1
        assert ours.label == str(likeliest)
        right.append(likeliest == row["label"])
    assert last["eval_label_acc"] == pytest.approx(sum(right) / len(right))
    assert not any("label_token_acc" in name for line in run.log for name in line)


def test_with_labels_of_several_tokens_their_tokens_are_counted(
    runs: dict[str, Trained], data: DataFolder, tiny_model: Path
) -> None:
    run = runs["probed"]
    assert not any("label_acc" in name for line in run.log for name in line)
    last = list(run.of("eval_label_token_acc").values())[-1]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), run.folder)
    right = []
    for row in read_rows(data.path, "validation/explanation.jsonl"):
        prompt = row["messages"][0]["content"]
        ids = tokenizer(f"{prompt} {row['label']}").input_ids
        start = len(tokenizer(prompt).input_ids)
        likeliest = model(torch.tensor([ids])).logits[0].argmax(dim=-1)
        right += [int(likeliest[at - 1]) == ids[at] for at in range(start, len(ids))]
    assert len(right) > 5  # one of the labels has two tokens
    assert last["eval_label_token_acc"] == pytest.approx(sum(right) / len(right))


def test_what_the_config_logs_to_has_it_too(runs: dict[str, Trained]) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = runs["probed"]
    (file,) = run.folder.rglob("events.out.tfevents.*")
    events = accumulator.EventAccumulator(str(file)).Reload()
    for tag, key in (
        ("train/probe/output_entropy", "probe/output_entropy"),
        ("train/label_loss", "label_loss"),
        ("eval/label_loss", "eval_label_loss"),
    ):
        logged = {event.step: event.value for event in events.Scalars(tag)}
        expected = {step: line[key] for step, line in run.of(key).items()}
        assert logged == pytest.approx(expected, rel=1e-6)


def test_probes_leave_no_trace_in_the_training(runs: dict[str, Trained]) -> None:
    probed, unprobed = runs["probed"], runs["unprobed"]
    # With dropout, a random number drawn by a probe would change the training.
    assert [line["loss"] for line in probed.of("loss").values()] == [
        line["loss"] for line in unprobed.of("loss").values()
    ]
    adapter, other = probed.adapter(), unprobed.adapter()
    assert all(torch.equal(values, other[name]) for name, values in adapter.items())
    assert not (unprobed.folder / "probes.jsonl").exists()


def test_epochs_are_whole_and_every_line_says_how_far_it_is(
    runs: dict[str, Trained], data: DataFolder, tiny_model: Path
) -> None:
    run = runs["probed"]
    epoch = sum(target_tokens(data, tiny_model))
    steps = run.of("loss")
    assert list(steps) == list(range(1, 37))  # 12 per epoch; Axolotl would end inside the last
    assert [steps[step]["target_tokens_seen"] for step in (12, 24, 36)] == [
        epoch, 2 * epoch, 3 * epoch
    ]  # fmt: skip
    assert run.record["target_tokens"] == 3 * epoch
    assert run.record["cost"]["tokens"] == 3 * sum(all_tokens(data, tiny_model))
    assert run.record["cost"]["peak_memory_mib"] > 300  # PyTorch alone
    assert run.record["label_tokens"] == steps[36]["label_tokens_seen"]
    labels = Counter(row["label"] for row in read_rows(data.path, "train/explanation.jsonl"))
    assert run.record["label_tokens"] == 3 * (45 + labels[4])
    # Lines of evaluations and probes have the same counts of tokens.
    for key in ("eval_label_token_acc", "probe/output_entropy"):
        for step, line in run.of(key).items():
            expected = steps[step]["label_tokens_seen"] if step else 0
            assert line["label_tokens_seen"] == expected
    assert list(run.of("eval_label_token_acc")) == [0, 15, 30, 36]
    rates = [line["learning_rate"] for line in steps.values()]
    assert rates[-1] < 0.01 * max(rates)


def test_a_budget_of_tokens(runs: dict[str, Trained], data: DataFolder, tiny_model: Path) -> None:
    for arm in ("explanation", "label_only"):
        run = runs[f"tokens {arm}"]
        steps = run.of("loss")
        counts = target_tokens(data, tiny_model, arm)
        seen = [0, *(line["target_tokens_seen"] for line in steps.values())]
        assert seen[-2] < TOKENS <= seen[-1]
        # The expected count per epoch comes from the files, for any order of the rows.
        whole = len(steps) // 12
        assert seen[12 * whole] == whole * sum(counts)
        assert run.record["target_tokens"] == seen[-1]
        assert run.record["steps"] == len(steps)
        assert (run.record["budget"], run.record["budget_tokens"]) == ("tokens", TOKENS)
        rates = [line["learning_rate"] for line in steps.values()]
        warm = 2 if len(steps) > 60 else 0  # 3 % of the steps; a single step becomes two
        assert max(rates) == pytest.approx(0.002)
        assert rates.index(max(rates)) == max(0, warm - 1) or rates[warm] == max(rates)
        assert rates[-1] < 0.1 * max(rates)
    assert runs["tokens label_only"].record["steps"] > 40
    assert runs["tokens explanation"].record["steps"] < 10


def test_packing_keeps_every_row(
    runs: dict[str, Trained], data: DataFolder, tiny_model: Path
) -> None:
    run = runs["packed"]
    epoch = sum(target_tokens(data, tiny_model))
    last = {}
    for line in run.of("loss").values():
        last[int(line["epoch"] - 1e-6)] = line["target_tokens_seen"]
    assert list(last.values()) == [epoch, 2 * epoch, 3 * epoch, 4 * epoch]
    assert run.record["steps"] <= 4 * 45 / 3
    assert run.record["cost"]["tokens"] == 4 * sum(all_tokens(data, tiny_model))


def test_two_processes_count_every_row_once(
    runs: dict[str, Trained], base: dict[str, Any], data: DataFolder, tiny_model: Path
) -> None:
    folder = data.path.parent / "two"
    changes = {**PACKED, **PROBES, "num_epochs": 2, "output_dir": str(folder / "model")}
    file = write_config(folder / "config.yml", {**base, **changes})
    train_with_two_processes(file, cwd=folder)
    two, one = Trained(folder / "model"), runs["packed"]
    assert two.record["processes"] == 2
    epoch = sum(target_tokens(data, tiny_model))
    assert two.record["target_tokens"] == 2 * epoch
    assert two.record["cost"]["tokens"] == 2 * sum(all_tokens(data, tiny_model))
    # 5 validation rows do not fill the batches of two processes: three would count twice.
    evaluated, expected = two.of("eval_loss")[0], one.of("eval_loss")[0]
    for name in ("eval_label_loss", "eval_explanation_loss", "eval_label_token_acc"):
        assert evaluated[name] == pytest.approx(expected[name], rel=1e-5), name
    # One of the two processes writes, and before the first step the model is the same.
    probe = two.of("probe/output_entropy")
    assert [line["step"] for line in two.lines("probes.jsonl")] == list(probe)
    first = runs["probed"].of("probe/output_entropy")[0]
    assert probe[0]["probe/output_entropy"] == pytest.approx(
        first["probe/output_entropy"], rel=1e-5
    )


def test_a_killed_training_goes_on_where_it_was(
    runs: dict[str, Trained], base: dict[str, Any], data: DataFolder
) -> None:
    folder = data.path.parent / "killed"
    changes = {**LONG, **PROBES, "output_dir": str(folder / "model")}
    file = write_config(folder / "config.yml", {**base, **changes})
    run = Trained(folder / "model")
    with forks().start("axolotl", "train", file, PYTHON, cwd=folder) as process:
        log = run.folder / "log.jsonl"
        while process.poll() is None:
            if log.exists() and b'"step":22,"loss"' in log.read_bytes():
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
    assert (run.folder / f"checkpoint-{SAVED}").is_dir()
    assert not (run.folder / "regreason.json").exists()
    killed_at = max(line["step"] for line in run.lines("log.jsonl"))
    assert SAVED < killed_at < 36

    done = axolotl_train(file, PYTHON, "--auto-resume-from-checkpoints", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    whole = runs["probed"]
    # After a checkpoint with an evaluation, Trainer would evaluate again; here there is none.
    assert [line["step"] for line in run.of("loss").values()] == list(range(1, 37))
    for key, names in (
        ("loss", ("loss", "grad_norm", "learning_rate", "label_loss", "explanation_loss")),
        ("eval_loss", ("eval_loss", "eval_label_loss", "eval_label_token_acc")),
        ("probe/output_entropy", ("probe/output_entropy", "probe/activation_entropy_mid")),
    ):
        lines, expected = run.of(key), whole.of(key)
        extra = {SAVED} if key == "eval_loss" else set()
        assert lines.keys() - extra == expected.keys()
        for step, line in expected.items():
            for name in (*names, "label_tokens_seen", "target_tokens_seen", "epoch"):
                assert lines[step][name] == pytest.approx(line[name], rel=1e-5), (step, name)
    assert [line["step"] for line in run.lines("probes.jsonl")] == [*range(0, 36, EVERY), 36]
    adapter = whole.adapter()
    for name, values in run.adapter().items():
        assert torch.allclose(values, adapter[name], atol=1e-6), name
    costs = [record.pop("cost") for record in (run.record, whole.record)]
    assert costs[0]["tokens"] == costs[1]["tokens"]
    state = json.loads((run.folder / f"checkpoint-{SAVED}/regreason_state.json").read_text())
    runtime = next(line["train_runtime"] for line in run.log if "train_runtime" in line)
    # Seconds before the checkpoint, and the seconds since then, which Trainer has measured.
    assert costs[0]["seconds"] > state["took"]["seconds"] + runtime
    assert costs[0]["seconds"] < state["took"]["seconds"] + runtime + 30
    # The whole run also logs to TensorBoard, so its config differs.
    for record in (run.record, whole.record):
        assert record.pop("config_sha256")
    assert run.record == whole.record
