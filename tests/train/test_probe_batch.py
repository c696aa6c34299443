"""The probe batch: the same prompts for all arms and seeds, up to the position of the decision."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training_data import HOSTILE, build_data
from transformers import AutoModelForCausalLM, AutoTokenizer

from regreason_plugin.core.prompt import ORDERS, Order
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate.model import RegReasonHF
from regreason_plugin.probes import measure
from regreason_plugin.train.probe_batch import (
    ProbeBatch,
    choose_rows,
    make_batch,
    measure_batch,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=ORDERS)
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    folder = tmp_path_factory.mktemp("probe") / "data"
    return build_data(folder, rows=90, order=request.param, texts=HOSTILE)


@pytest.mark.parametrize(
    ("family", "chat"), [("tiny_model", False), ("tiny_model", True), ("mistral_model", False)]
)
def test_prompts_end_where_evaluation_decides(
    family: str, chat: bool, data: DataFolder, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(family)
    lm = RegReasonHF(str(folder), device="cpu", probe="output+label")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = choose_rows(data.rows("validation/explanation.jsonl"), 4)
    batch = make_batch(tokenizer, rows, data.order, {} if chat else None)
    assert len(batch.prompts) == len(rows) == 4
    for row, prompt in zip(rows, batch.prompts, strict=True):
        requests = lm_eval_requests(lm, row.messages[0].content, data.order, chat=chat)
        context = lm.context_of(requests)
        sequence, place = context.decides
        assert prompt == sequence[: place + 1]
        assert sorted(batch.choices) == context.choices
        # The trained tokens begin with this prompt as well.
        if not chat and data.order == "label_first":
            whole = " ".join(turn.content for turn in row.messages)
            assert tokenizer(whole).input_ids[: len(prompt)] == list(prompt)


def lm_eval_requests(lm: Any, prompt: str, order: Order, *, chat: bool) -> list[Any]:
    """The tasks' requests for the five labels; those of generative twins have no explanation."""
    if chat:
        prompt = lm.apply_chat_template([{"role": "user", "content": prompt}])
    first = order == "label_first"
    context = prompt if first else prompt + ("" if chat else " ") + "Rating:"
    requests = []
    for label in "12345":
        continuation = label if chat and first else f" {label}"
        requests.append(((context, continuation), *lm._encode_pair(context, continuation)))
    return requests


def test_all_arms_have_the_same_prompts_whatever_the_order_of_rows(data: DataFolder) -> None:
    batches = set()
    for arm in ARMS:
        rows = list(data.rows(f"validation/{arm}.jsonl"))
        random.Random(arm).shuffle(rows)
        batches.add(tuple((row.id, row.messages[0].content) for row in choose_rows(rows, 3)))
    assert len(batches) == 1
    assert len(set(batches.pop())) == 3


def test_means_over_the_batch_with_the_model_left_as_it_was(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    prompts = ((1, 20, 21, 22), (1, 30, 31), (1, 40, 41, 42, 43))
    batch = ProbeBatch(prompts, choices=(50, 51))
    model.eval()
    alone = [measure(model, torch.tensor([one]), choices=(50, 51))[0] for one in prompts]
    model.train()
    before = torch.random.get_rng_state()
    found = measure_batch(model, batch, torch.device("cpu"), rows=2)
    assert model.training
    assert model.model.layers[0].training
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in ("output_entropy", "label_entropy", "activation_entropy_mid"):
        assert found[name] == pytest.approx(sum(one[name] for one in alone) / 3, rel=1e-5)
    assert found["logit_lens_entropy_by_layer"][-1] == pytest.approx(found["output_entropy"])
    assert len(found["activation_entropy_by_layer"]) == 3
    assert "matrix_entropy_by_layer" not in found
    # Labels that do not differ at one position have no label entropy.
    assert "label_entropy" not in measure_batch(
        model, ProbeBatch(prompts, ()), torch.device("cpu"), rows=8
    )
