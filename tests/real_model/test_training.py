"""A real model: a few training steps, the merged adapter, and generated text that ends."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.axolotl import PYTHON, axolotl_train, environment, forks
from helpers.real_model import best_source, nli_data, nli_pairs
from helpers.step_training import Trained
from helpers.training_data import config, write_config
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from regreason_plugin import Classifier
from regreason_plugin.cli import main
from regreason_plugin.core.prompt import ORDERS, TARGET_DELIMITER, Order
from regreason_plugin.data_folder.folder import TEST, DataFolder

pytestmark = pytest.mark.e2e

SOURCE = best_source("esnli")
END = 2
STEPS, ROWS = 2, 6
SHARE = 0.3
# The same two steps over all rows, divided into micro-batches in different ways.
CUTS: dict[str, dict[str, Any]] = {
    "whole": {"micro_batch_size": ROWS},
    "accumulated": {"micro_batch_size": 1, "gradient_accumulation_steps": ROWS},
    "packed": {"micro_batch_size": 1, "sample_packing": True, "sequence_len": 400},
}
# Short enough to be memorised in a few steps.
EXPLANATION = "It says so."


def texts(data: DataFolder, count: int) -> list[str]:
    """The texts of the first test documents."""
    pairs = {f"pair-{number}": pair["text"] for number, pair in enumerate(nli_pairs(SOURCE))}
    return [pairs[row.id] for row in data.rows(TEST)][:count]


# --- a step in any division; and merged ---------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return nli_data(tmp_path_factory.mktemp("training") / "data", SOURCE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cuts")


def values(model: Path, data: DataFolder, place: Path, **changes: Any) -> dict[str, Any]:
    return config(
        model,
        data.path,
        place,
        test_datasets=None,
        regreason_label_share=SHARE,
        num_epochs=STEPS,
        logging_steps=1,
        save_strategy="steps",
        save_steps=1,
        # The first step of gradient descent shows the gradient.
        optimizer="sgd",
        learning_rate=0.02,
        max_grad_norm=1e6,
        **changes,
    )


@pytest.fixture(scope="module")
def runs(smollm2: Path, data: DataFolder, place: Path) -> dict[str, Trained]:
    assert data.manifest.counts["train"].rows == ROWS
    pairs = [{"output_dir": str(place / name / "{arm}"), **cut} for name, cut in CUTS.items()]
    file = write_config(place / "config.yml", values(smollm2, data, place))
    sweep = write_config(place / "sweep.yml", {"_": pairs})
    done = axolotl_train(file, "--sweep", sweep, PYTHON, cwd=place, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: Trained(place / name / "explanation") for name in CUTS}


@pytest.mark.parametrize("cut", ["accumulated", "packed"])
def test_a_step_is_the_same_however_it_is_cut(cut: str, runs: dict[str, Trained]) -> None:
    whole, found = runs["whole"], runs[cut]
    for one, other in zip(found.log(STEPS), whole.log(STEPS), strict=True):
        for name in ("loss", "grad_norm", "label_loss", "explanation_loss"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), name
        assert one["label_tokens_seen"] == other["label_tokens_seen"]
    for step in (1, STEPS):
        ours, theirs = found.adapter(step), whole.adapter(step)
        assert ours.keys() == theirs.keys()
        largest = max(float(values.abs().max()) for name, values in theirs.items() if "B" in name)
        for name, values in ours.items():
            assert float((values - theirs[name]).abs().max()) < 1e-4 * largest, name


def test_the_loss_gives_the_label_its_share_and_falls(runs: dict[str, Trained]) -> None:
    first, second = runs["whole"].log(STEPS)
    for line in (first, second):
        expected = SHARE * line["label_loss"] + (1 - SHARE) * line["explanation_loss"]
        assert line["loss"] == pytest.approx(expected, rel=1e-5)
    assert second["loss"] < first["loss"] - 0.01


def test_the_merged_model_scores_as_the_adapter_does(
    runs: dict[str, Trained], smollm2: Path, data: DataFolder, place: Path
) -> None:
    adapter = runs["whole"].folder
    changes = {"output_dir": str(place / "whole" / "{arm}"), **CUTS["whole"]}
    file = write_config(place / "merge.yml", values(smollm2, data, place, **changes))
    done = forks().run("axolotl", "merge-lora", file, cwd=place, env=environment())
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    base, ours, merged = (
        probabilities(f"{arguments},dtype=float32", data)
        for arguments in (
            f"pretrained={smollm2}",
            f"pretrained={smollm2},peft={adapter}",
            f"pretrained={adapter / 'merged'}",
        )
    )
    assert np.abs(ours - merged).max() < 1e-4
    assert np.abs(ours - base).max() > 1e-2


def probabilities(model: str, data: DataFolder) -> Any:
    """The label probabilities of three texts."""
    found = Classifier(model, data.path, device="cpu")(texts(data, 3))
    return np.array([list(one.probabilities.values()) for one in found])


# --- generated text that ends -------------------------------------------------------------


@pytest.fixture(scope="module", params=ORDERS)
def learnt(
    request: pytest.FixtureRequest, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DataFolder, Path]:
    """A model that has memorised one explanation, and its training data."""
    place = tmp_path_factory.mktemp("learnt")
    order: Order = request.param
    data = nli_data(place / "data", SOURCE, order, EXPLANATION)
    given = config(
        smollm2,
        data.path,
        place,
        test_datasets=None,
        micro_batch_size=ROWS,
        num_epochs=7,
        learning_rate=0.005,
    )
    done = axolotl_train(write_config(place / "config.yml", given), PYTHON, cwd=place, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return data, place / "models" / "explanation"


def test_it_writes_its_end_and_predict_stops_there(
    learnt: tuple[DataFolder, Path], smollm2: Path, tmp_path: Path
) -> None:
    data, adapter = learnt
    prompt = next(iter(data.rows(TEST))).messages[0].content
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).eval()
    ids = tokenizer(prompt + TARGET_DELIMITER.rstrip(), return_tensors="pt").input_ids
    written = model.generate(input_ids=ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
    text = tokenizer.decode(written)
    assert text.endswith("<|im_end|>")
    assert text.count("<|im_end|>") == 1
    label = text.replace("Rating:", "").replace(EXPLANATION, "").replace("<|im_end|>", "").strip()
    assert label in data.declaration.labels
    assert EXPLANATION in text

    asked = texts(data, 2)
    table = tmp_path / "new.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([one] for one in asked)])
    out = tmp_path / "labelled.jsonl"
    arguments = f"pretrained={smollm2},peft={adapter},dtype=float32"
    command = ["predict", str(table), "--out", str(out), "--model_args", arguments]
    assert main([*command, "--data", str(data.path), "--explain", "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    # The text neither loops nor goes on to the limit of 256 tokens.
    assert [row["explanation"] for row in rows] == [EXPLANATION] * len(asked)
    assert {row["label"] for row in rows} <= set(data.declaration.labels)
