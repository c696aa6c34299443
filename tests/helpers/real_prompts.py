"""Prompts of real text: chats of HH-RLHF, sentence pairs of e-SNLI, dialogues of Topical-Chat.

The files are public, but not part of the repository; docs/explanation/probes.md names their
sources.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.paper import AXES, EIGHTEEN
from regreason_plugin.core.prompt import render_prompt
from regreason_plugin.core.records import Conversation, Turn
from regreason_plugin.data.hh import parse_turns

DATA = Path(os.environ.get("REGREASON_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES = {
    "hh": DATA / "hh-rlhf" / "helpful-base-test.jsonl.gz",
    "topical": DATA / "topical-usr" / "topical_chat.json.gz",
    "esnli": DATA / "esnli" / "dev.csv.gz",
}
NLI = Declaration.model_validate(
    {
        "labels": ["entailment", "neutral", "contradiction"],
        "ordinal": False,
        "datasets": {"esnli": {"title": "e-SNLI"}},
        "axes": {"nli": {"title": "NLI", "question": "entailment, neutral or contradiction?"}},
    }
)


def real_prompts(each: int) -> list[str]:
    """``each`` prompts of every file, the same in every call, with the axes in turn."""
    axes = list(AXES)
    prompts = []
    for name, (read, prompt) in _SOURCES.items():
        with gzip.open(FILES[name], "rt", encoding="utf-8", newline="") as stream:
            rows = random.Random(0).sample(read(stream), each)
        prompts += [prompt(row, axes[number % len(axes)]) for number, row in enumerate(rows)]
    return prompts


def _prompt(dataset: str, turns: list[Turn], axis: str, context: str | None = None) -> str:
    conversation = Conversation(
        id="1", dataset=dataset, group="1", conversation=turns, context=context
    )
    return render_prompt(conversation, axis, EIGHTEEN)


def _hh(row: dict[str, Any], axis: str) -> str:
    turns = [turn for turn in parse_turns(row["chosen"], "chosen") if turn.content.strip()]
    return _prompt("hh_chosen", turns, axis)


def _topical(row: dict[str, Any], axis: str) -> str:
    said = [line.strip() for line in row["source"].split("\n") if line.strip()]
    said.append(row["system_output"].strip())
    # The dialogue's last turn is the assistant's.
    roles = ("assistant", "user")
    turns = [
        Turn(role=roles[(len(said) - 1 - number) % 2], content=text)
        for number, text in enumerate(said)
    ]
    return _prompt("chatbot_arena", turns, axis, row["context"].strip() or None)


def _esnli(row: dict[str, Any], _: str) -> str:
    turns = [Turn(role="assistant", content=row["text"])]
    conversation = Conversation.model_validate(
        {"id": "1", "dataset": "esnli", "group": "1", "conversation": turns},
        context={"declaration": NLI},
    )
    return render_prompt(conversation, "nli", NLI)


_Rows = Callable[[Any], list[dict[str, Any]]]
_SOURCES: dict[str, tuple[_Rows, Callable[[dict[str, Any], str], str]]] = {
    "hh": (lambda stream: [json.loads(line) for line in stream], _hh),
    "topical": (json.load, _topical),
    "esnli": (lambda stream: list(csv.DictReader(stream)), _esnli),
}
