"""Trained tokens equal scored tokens, with a real model's byte-level BPE and ChatML template."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from helpers.real_model import CONVERSATIONS, Source, nli_data, rated_data, require
from helpers.scoring import task_manager, write_task
from helpers.trained_rows import (
    Trained,
    hf_scorer,
    label_requests,
    trained_rows,
    with_chat_template,
)
from helpers.training_data import config, read_rows
from lm_eval.tasks import TaskManager

from regreason_plugin.core.paper import AXES
from regreason_plugin.core.prompt import ORDERS, TARGET_DELIMITER, Order
from regreason_plugin.data_folder.folder import DataFolder

pytestmark = pytest.mark.integration

END = 2
# The template puts this before a user's message if there is no system message.
SYSTEM = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n"
)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trained]:
    monkeypatch.setenv("AXOLOTL_TEE_STDOUT", "0")
    # No test reads the saved rows, and `datasets` saves in a new process, which takes seconds.
    from axolotl.utils.data import sft

    monkeypatch.setattr(sft, "save_preprocessed_dataset", lambda *_: None)
    with trained_rows(tmp_path / "config.yml") as load:
        yield load


@pytest.fixture(scope="module")
def scorer(smollm2: Path) -> Any:
    return hf_scorer(smollm2, dtype="float32")


def own_tasks(data: DataFolder, folder: Path, place: Path) -> TaskManager:
    """A task manager with the task of the sentence pairs, which is not a built-in task."""
    kind = "_label_first.yml" if data.order == "label_first" else "_explanation_first.yml"
    name = "nli" if data.order == "label_first" else "nli-gen"
    write_task(data, folder, kind, name)
    return TaskManager(
        include_path=str(folder), include_defaults=False, metadata={"data_dir": str(place)}
    )


@pytest.mark.parametrize(
    ("kind", "source", "chat", "order"),
    [
        *(("pairs", "own", chat, order) for chat in (False, True) for order in ORDERS),
        ("conversations", "own", True, "label_first"),
        ("pairs", "real", False, "explanation_first"),
        ("pairs", "real", True, "label_first"),
        ("conversations", "real", False, "label_first"),
        ("conversations", "real", True, "explanation_first"),
    ],
)
def test_trained_tokens_are_the_scored_tokens(
    kind: str,
    source: Source,
    chat: bool,
    order: Order,
    smollm2: Path,
    scorer: Any,
    trained: Trained,
    tmp_path: Path,
) -> None:
    require(source, "esnli", "hh")
    build = nli_data if kind == "pairs" else rated_data
    data = build(tmp_path / "data", source, order)
    values = config(smollm2, data.path, tmp_path, test_datasets=None)
    how: dict[str, Any] = {}
    if chat:
        values = with_chat_template(values)
        template = scorer.apply_chat_template
        how = {"apply_chat_template": True, "chat_template": template, "tokenizer_name": "smollm2"}
    rows = read_rows(data.path, "train/explanation.jsonl")
    got = list(zip(rows, trained(values), strict=True))
    assert len(got) == data.manifest.counts["train"].rows >= 6
    seen = 0
    for axis in ["label"] if kind == "pairs" else AXES:
        manager = partial(own_tasks, data, tmp_path / "task") if kind == "pairs" else task_manager
        mine = [(row, ids) for row, ids in got if row["axis"] == axis]
        place = tmp_path / f"scored-{axis}"
        asked = label_requests([row for row, _ in mine], data, place, manager, **how)
        for row, ids in mine:
            check(row, ids, asked[row["id"]], scorer, chat=chat)
            seen += 1
    assert seen == len(rows)
    assert kind == "pairs" or {row["dataset"] for row in rows} == {CONVERSATIONS}


def check(row: Any, ids: Any, asked: tuple[str, str], scorer: Any, *, chat: bool) -> None:
    """Compare a row's trained tokens with the request for the row."""
    tokenizer = scorer.tokenizer
    special = set(tokenizer.added_tokens_decoder)
    scored = list(chain(*scorer._encode_pair(*asked)))
    assert ids["input_ids"][: len(scored)] == scored
    prompt, target = (message["content"] for message in row["messages"])
    # The loss covers everything after the prompt, up to and including the end of text.
    if chat:
        start = len(scorer.tok_encode(scorer.apply_chat_template([row["messages"][0]])))
        whole = scorer.apply_chat_template([row["messages"][0]]) + target
        assert whole.startswith(SYSTEM)
        assert not set(ids["input_ids"][start:]) & (special - {END})
    else:
        start = len(scorer.tok_encode(prompt))
        whole = prompt + TARGET_DELIMITER + target
        assert not set(ids["input_ids"][:-1]) & special
    assert ids["labels"][:start] == [-100] * start
    end = ids["input_ids"].index(END, start)
    assert ids["input_ids"][:end] == tokenizer.encode(whole, add_special_tokens=False)
    assert ids["labels"][start : end + 1] == ids["input_ids"][start : end + 1]
    # The template writes a line end after the end of text, which is not in the loss.
    rest = len(ids["input_ids"]) - end - 1
    assert tokenizer.decode(ids["input_ids"][end + 1 :]) == ("\n" if chat else "")
    assert ids["labels"][end + 1 :] == [-100] * rest
