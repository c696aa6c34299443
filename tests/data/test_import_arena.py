"""The Chatbot Arena importer: two conversations per row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.raw_datasets import arena_row, imported, texts, write_lines, write_parquet

from regreason_plugin.core.errors import UserError
from regreason_plugin.data.groups import text_group


@pytest.mark.parametrize("write", [write_lines, write_parquet])
def test_both_conversations_of_a_row(tmp_path: Path, write: Any) -> None:
    name = "in.jsonl" if write is write_lines else "in.parquet"
    path = write(tmp_path / name, [arena_row("What is RAIN?", "Water.", "No idea.")])
    (one, two), done = imported("chatbot_arena", path)
    assert texts(one) == [("user", "What is RAIN?"), ("assistant", "Water.")]
    assert texts(two) == [("user", "What is RAIN?"), ("assistant", "No idea.")]
    assert one.id != two.id
    assert one.group == two.group == text_group("what is rain")
    # The judge, the time and the moderation flags are not imported.
    assert one.meta == {"model": "model-one", "outcome": "won", "language": "English"}
    assert two.meta == {"model": "model-two", "outcome": "lost", "language": "English"}
    assert not done.left_out


@pytest.mark.parametrize(
    ("winner", "outcomes"),
    [
        ("model_b", ("lost", "won")),
        ("tie", ("tie", "tie")),
        ("tie (bothbad)", ("tie (bothbad)", "tie (bothbad)")),
        (None, (None, None)),
    ],
)
def test_outcomes(tmp_path: Path, winner: Any, outcomes: tuple[Any, Any]) -> None:
    path = write_lines(tmp_path / "in.jsonl", [arena_row("q", winner=winner)])
    both, _ = imported("chatbot_arena", path)
    assert tuple((one.meta or {}).get("outcome") for one in both) == outcomes


def test_prompts_that_repeat_share_their_group_and_equal_answers_are_one(tmp_path: Path) -> None:
    rows = [
        arena_row("Hello!", "Hi.", "Hi.", question_id="1"),
        arena_row("hello", "Good day.", "Hi.", question_id="2"),
        arena_row("Bye", "Bye.", "Hi.", question_id="3"),
    ]
    conversations, done = imported("chatbot_arena", write_lines(tmp_path / "in.jsonl", rows))
    assert len(conversations) == 5
    assert done.groups == 2
    assert done.left_out == {"duplicate conversation": 1}


def test_a_side_that_is_broken_leaves_the_other(tmp_path: Path) -> None:
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "again?"},
        {"role": "assistant", "content": "a\r\nb"},
    ]
    rows = [
        arena_row("1", conversation_b=history),
        arena_row("2", "", "Yes."),
        arena_row("3", conversation_a=history[:2]),
        arena_row("4", conversation_a=[]),
        arena_row("5", conversation_a="text", conversation_b=None),
        arena_row("6", conversation_a=["text"], conversation_b=[{"role": "user"}]),
        arena_row("7", conversation_a=[{"role": "bot", "content": "x"}]),
        arena_row("8", conversation_a=[{"role": "assistant", "content": "x"}]),
    ]
    conversations, done = imported("chatbot_arena", write_lines(tmp_path / "in.jsonl", rows))
    assert len(conversations) + sum(done.left_out.values()) == 2 * len(rows)
    assert texts(conversations[1]) == [
        ("system", "Be brief."),
        ("user", "q"),
        ("assistant", ""),
        ("user", "again?"),
        ("assistant", "a\nb"),
    ]
    assert done.left_out == {
        "no response at the end": 3,
        "conversation_a is not a list": 1,
        "conversation_b is missing": 1,
        "conversation_a is not an object with role and content": 1,
        "conversation_b.content is missing": 1,
        "conversation_a.role is not one of system, user, assistant": 1,
        "no message from the user": 1,
    }


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            arena_row("q", conversation_b=[{"role": "user", "content": 3}]),
            r"conversation_b.0.content: is not a text \(got 3\)",
        ),
        (arena_row("q", "", "a"), "field conversation_a: no response at the end"),
    ],
)
def test_strict_names_row_and_field(tmp_path: Path, row: Any, expected: str) -> None:
    rows = [arena_row("q"), row]
    with pytest.raises(UserError, match=f"in.jsonl, line 2.*{expected}"):
        imported("chatbot_arena", write_lines(tmp_path / "in.jsonl", rows), strict=True)
    if "no response" in expected:
        with pytest.raises(UserError, match=f"in.parquet, row 2.*{expected}"):
            imported("chatbot_arena", write_parquet(tmp_path / "in.parquet", rows), strict=True)
    assert not list(tmp_path.glob("*out*"))
