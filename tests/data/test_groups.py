from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.core.records import Turn
from regreason_plugin.data.groups import (
    conversation_id,
    first_user_turn_group,
    normalise,
    text_group,
)

ROLES = st.sampled_from(["system", "user", "assistant"])
TURNS = st.lists(st.builds(Turn, role=ROLES, content=st.text()), min_size=1, max_size=4)


def user(text: str) -> Turn:
    return Turn(role="user", content=text)


def assistant(text: str) -> Turn:
    return Turn(role="assistant", content=text)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("  What IS it,\n\tplease? ", "what is it please"),
        ("Stra\u00dfe", "strasse"),
        ("\uff21\uff22\uff23", "abc"),  # full-width letters
        ("it's", "it s"),
        ("???", "???"),
        ("? !", "? !"),
        ("", ""),
    ],
)
def test_normalise(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


def test_a_group_is_a_hash_that_another_program_could_compute() -> None:
    digest = hashlib.sha256(b"what is it please").hexdigest()
    assert text_group("What is it, please?") == f"text-{digest[:16]}"


def test_both_answers_to_a_request_share_their_group() -> None:
    chosen = [user("How do I swim?"), assistant("Start in shallow water.")]
    rejected = [user("how do I swim"), assistant("No.")]
    other = [user("How do I sing?"), assistant("No.")]
    assert first_user_turn_group(chosen) == first_user_turn_group(rejected)
    assert first_user_turn_group(chosen) != first_user_turn_group(other)


def test_the_group_is_that_of_the_first_user_turn_with_text() -> None:
    turns = [assistant("Welcome."), user(" "), user("First"), assistant("Yes"), user("Second")]
    assert first_user_turn_group(turns) == text_group("First")


def test_without_a_user_the_first_message_counts() -> None:
    assert first_user_turn_group([assistant("Alone."), assistant("Again.")]) == text_group("Alone")


@given(TURNS)
def test_every_conversation_has_a_group_and_an_id(turns: list[Turn]) -> None:
    assert first_user_turn_group(turns).startswith("text-")
    name, digest = conversation_id("cornell", turns).split("-")
    assert name == "cornell"
    assert len(digest) == 12


def test_a_lone_surrogate_has_an_id() -> None:
    assert conversation_id("amazon_qa", [assistant("\ud83d")])


@given(TURNS, TURNS, st.none() | st.text(min_size=1), st.none() | st.text(min_size=1))
def test_ids_differ_where_the_content_differs(
    one: list[Turn], two: list[Turn], story: str | None, other: str | None
) -> None:
    same = (one, story) == (two, other)
    assert (conversation_id("coqa", one, story) == conversation_id("coqa", two, other)) == same


def test_text_that_moves_to_another_turn_changes_the_id() -> None:
    assert conversation_id("coqa", [user("a b"), assistant("c")]) != conversation_id(
        "coqa", [user("a"), assistant("b c")]
    )
    assert conversation_id("coqa", [assistant("b")], "a") != conversation_id(
        "coqa", [assistant("a b")]
    )
    assert conversation_id("coqa", [assistant('x"], ["user", "y')]) != conversation_id(
        "coqa", [assistant("x"), user("y")]
    )
    assert conversation_id("coqa", [assistant("x\0user\0y")]) != conversation_id(
        "coqa", [assistant("x"), user("y")]
    )
