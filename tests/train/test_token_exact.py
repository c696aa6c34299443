"""Training and evaluation use the same tokens, up to and including the label.

The trained tokens come from Axolotl's own data loading; the scored tokens come from the requests
that lm-eval's `hf` model gets.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from helpers.trained_rows import (
    Trained,
    hf_scorer,
    label_requests,
    special_ids,
    trained_rows,
    with_chat_template,
)
from helpers.training_data import HOSTILE, build_data, config, read_rows

from regreason_plugin.core.prompt import ORDERS, TARGET_DELIMITER, Order
from regreason_plugin.data_folder.arms import ARMS

pytestmark = pytest.mark.integration


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trained]:
    """Load a config's training rows as `axolotl train` does, in the file's order."""
    monkeypatch.setenv("AXOLOTL_TEE_STDOUT", "0")
    with trained_rows(tmp_path / "config.yml") as load:
        yield load


@pytest.mark.parametrize(
    ("family", "order"),
    [
        *(("tiny_model", order) for order in ORDERS),
        ("mistral_model", "label_first"),
        pytest.param("mistral_model", "explanation_first", marks=pytest.mark.slow),
    ],
)
def test_trained_tokens_are_the_scored_tokens(
    family: str,
    order: Order,
    trained: Trained,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    model = request.getfixturevalue(family)
    data = build_data(tmp_path / "data", order=order, texts=HOSTILE)
    scorer = hf_scorer(model)
    special = special_ids(model)
    tokenizer = scorer.tokenizer
    for arm in ARMS:
        values = config(model, data.path, tmp_path, regreason_arm=arm, test_datasets=None)
        rows = read_rows(data.path, f"train/{arm}.jsonl")
        requests = label_requests(rows, data, tmp_path / f"scored-{arm}")
        got = trained(values)
        assert len(got) == len(rows) == len(requests) == data.manifest.counts["train"].rows
        for row, ids in zip(rows, got, strict=True):
            prompt, target = (message["content"] for message in row["messages"])
            context, continuation = requests[row["id"]]
            assert continuation == f" {row['label']}"
            scored = list(chain(*scorer._encode_pair(context, continuation)))
            assert ids["input_ids"][: len(scored)] == scored
            assert scored[0] == tokenizer.bos_token_id
            # The loss begins where the prompt ends, and covers all tokens after it.
            start = len(scorer.tok_encode(prompt))
            assert ids["labels"][:start] == [-100] * start
            assert ids["labels"][start:] == ids["input_ids"][start:]
            # The whole text is there, and no part of it is a special token.
            assert ids["input_ids"][-1] == tokenizer.eos_token_id
            assert not special & set(ids["input_ids"][1:-1])
            assert ids["input_ids"][:-1] == tokenizer.encode(prompt + TARGET_DELIMITER + target)
            assert len(ids["attention_mask"]) == len(ids["input_ids"])


def test_a_hundred_thousand_characters(tiny_model: Path, trained: Trained, tmp_path: Path) -> None:
    data = build_data(tmp_path / "data", rows=5, texts=["</s> A very long story. " * 4167])
    rows = read_rows(data.path, "train/label_only.jsonl")
    values = config(tiny_model, data.path, tmp_path, regreason_arm="label_only")
    got = trained(values | {"sequence_len": 1_000_000, "test_datasets": None})
    assert len(got) == len(rows) > 0
    special = special_ids(tiny_model)
    for row, ids in zip(rows, got, strict=True):
        assert len(row["messages"][0]["content"]) > 100_000
        assert len(ids["input_ids"]) > 100_000
        assert not special & set(ids["input_ids"][1:-1])


CHATML = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def chat_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model as a chat model; its template begins with the beginning-of-text token."""
    folder = tmp_path / "chat_model"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


@pytest.mark.parametrize("order", ORDERS)
def test_chat_template_tokens_are_the_scored_tokens(
    order: Order, chat_model: Path, trained: Trained, tmp_path: Path
) -> None:
    data = build_data(tmp_path / "data", order=order, texts=HOSTILE)
    scorer = hf_scorer(chat_model)
    special = special_ids(chat_model)
    end = scorer.tokenizer.convert_tokens_to_ids("<|im_end|>")
    values = with_chat_template(config(chat_model, data.path, tmp_path, test_datasets=None))
    rows = read_rows(data.path, "train/explanation.jsonl")
    chat = {
        "apply_chat_template": True,
        "chat_template": scorer.apply_chat_template,
        "tokenizer_name": "chatml",
    }
    requests = label_requests(rows, data, tmp_path / "scored", **chat)
    for row, ids in zip(rows, trained(values), strict=True):
        user = row["messages"][0]
        scored = list(chain(*scorer._encode_pair(*requests[row["id"]])))
        assert ids["input_ids"][: len(scored)] == scored
        first = next(i for i, token in enumerate(ids["labels"]) if token != -100)
        assert first == len(scorer.tok_encode(scorer.apply_chat_template([user])))
        target = ids["input_ids"][first:]
        assert target[target.index(end) :] == [end, *scorer.tok_encode("\n", False)]
        assert not special & set(target[: target.index(end)])


def test_a_chat_template_without_the_beginning_of_text_is_refused(
    tiny_model: Path, trained: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = build_data(tmp_path / "data")
    with pytest.raises(SystemExit) as stop:
        trained(with_chat_template(config(tiny_model, data.path, tmp_path)))
    assert stop.value.code == 2
    assert "renders training and evaluation differently" in capfd.readouterr().err


def test_a_special_token_in_a_chat_is_refused(
    chat_model: Path, trained: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = build_data(tmp_path / "data")
    odd = _odd_tokenizer(chat_model, tmp_path / "odd", "ODD")
    with pytest.raises(SystemExit) as stop:
        trained(
            with_chat_template(config(chat_model, data.path, tmp_path, tokenizer_config=str(odd)))
        )
    assert stop.value.code == 2
    assert "axis on_topic: its text holds 'answer', a special token" in capfd.readouterr().err


def test_changed_data_is_tokenized_anew(tiny_model: Path, trained: Trained, tmp_path: Path) -> None:
    import os

    data = tmp_path / "data"
    values = config(tiny_model, data, tmp_path, test_datasets=None)
    stamp = (1_000_000_000, 1_000_000_000)
    got = []
    for label in (0, 1):
        shutil.rmtree(data, ignore_errors=True)
        build_data(data, first_label=label)
        # Some tools keep the time of a file that they rewrite, and datasets checks only the time.
        os.utime(data / "train/explanation.jsonl", stamp)
        got.append(trained(values))
    assert [row["labels"] for row in got[0]] != [row["labels"] for row in got[1]]
    prepared = [path for path in (tmp_path / "prepared").iterdir() if path.is_dir()]
    assert len(prepared) == 2
    assert trained(values) == got[1]


def test_a_tokenizer_made_anew_is_used(tiny_model: Path, trained: Trained, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    data = build_data(tmp_path / "data")
    values = config(model, data.path, tmp_path, test_datasets=None)
    before = trained(values)
    file = model / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["merges"] = []
    file.write_text(json.dumps(tokenizer))
    after = trained(values)
    assert len(after[0]["input_ids"]) > len(before[0]["input_ids"])


def test_a_row_that_is_too_long_stops_the_run(
    tiny_model: Path, trained: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = build_data(tmp_path / "data", texts=["short", "long " * 300])
    with pytest.raises(SystemExit) as stop:
        trained(config(tiny_model, data.path, tmp_path, sequence_len=512))
    assert stop.value.code == 2
    rows = read_rows(data.path, "train/explanation.jsonl")
    long = sum("long long" in row["explanation"] for row in rows)
    assert f"{long} of {len(rows)} rows are longer than 512 tokens" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tokens": ["answer"], "lora_modules_to_save": ["embed_tokens", "lm_head"]},
            "splits text differently",
        ),
        ({"tokenizer_config": "MERGING"}, "merges the label with the text after it"),
        ({"tokenizer_config": "ENDING"}, "appends a token to every text"),
        ({"tokenizer_config": "ODD"}, "axis on_topic': its text holds 'answer'"),
    ],
)
def test_a_tokenizer_that_cannot_be_right_is_refused(
    changes: dict[str, Any],
    message: str,
    tiny_model: Path,
    trained: Trained,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = build_data(tmp_path / "data")
    kind = changes.get("tokenizer_config")
    if kind:
        changes = {"tokenizer_config": str(_odd_tokenizer(tiny_model, tmp_path / "odd", kind))}
    with pytest.raises(SystemExit) as stop:
        trained(config(tiny_model, data.path, tmp_path, **changes))
    assert stop.value.code == 2
    assert message in capfd.readouterr().err


def _odd_tokenizer(model: Path, folder: Path, kind: str) -> Path:
    shutil.copytree(model, folder)
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    vocabulary = values["model"]["vocab"]
    if kind == "MERGING":
        # Digits merge with a line break if the tokenizer does not first split text into words.
        for digit in "12345":
            vocabulary[f"{digit}\u010a"] = len(vocabulary)
            values["model"]["merges"].insert(0, [digit, "\u010a"])
        values["pre_tokenizer"]["use_regex"] = False
    elif kind == "ENDING":
        template = values["post_processor"]["processors"][1]
        template["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
        template["special_tokens"]["</s>"] = {"id": "</s>", "ids": [1], "tokens": ["</s>"]}
    else:
        added = dict(values["added_tokens"][0], id=len(vocabulary), content="answer")
        values["added_tokens"].append(added)
    file.write_text(json.dumps(values))
    return folder
