"""Reading a model's answer: which answers are read, and which are refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regreason_plugin.annotate.answers import (
    LONGEST_ANSWER,
    LONGEST_EXPLANATION,
    Unreadable,
    read_explanation,
    read_rating,
)

# The names of unreadable answers, as docs/guides/annotate.md and the module list them.
NAMES = {
    "answer_too_long",
    "no_answer",
    "broken_json",
    "score_missing",
    "score_not_a_number",
    "score_out_of_range",
    "explanation_empty",
    "explanation_too_long",
}
SCALES = st.sampled_from([4, 5, 7])
# Letters and punctuation without digits, so that no explanation states a score.
EXPLANATIONS = (
    st.lists(st.text("aesré漢',.;:!?-\"", min_size=1, max_size=9), min_size=1, max_size=9)
    .map(" ".join)
    .filter(str.strip)
)
PROSE = st.sampled_from(["", "Sure! ", "Here is my rating:\n\n", "I thought {hard} about it. "])
LABELS = [
    "Score: {}",
    "score = {}",
    "**Rating:** {}",
    "Score: {}/{scale}",
    "Rating {} out of {scale}",
]


def outcome(read: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a reader, or the name of the error that it raises."""
    try:
        return read(*arguments)
    except Unreadable as unreadable:
        return str(unreadable)


def refused(text: str, scale: int = 5) -> str:
    with pytest.raises(Unreadable) as caught:
        read_rating(text, scale)
    return str(caught.value)


@given(
    explanation=EXPLANATIONS,
    scale=SCALES,
    part=st.integers(0, 6),
    spell=st.sampled_from([int, float, str, "{}/{scale}", " {} ", "{}.0", "{} out of {scale}"]),
    fence=st.sampled_from(["{}", "```json\n{}\n```", "```\n{}\n```", " \n{}\n\n"]),
    before=PROSE,
    after=st.sampled_from(["", "\nI hope this helps!", "\n\n(End.)"]),
    indent=st.sampled_from([None, 2]),
    reverse=st.booleans(),
)
def test_an_object_is_found_wherever_it_stands(  # type: ignore[no-untyped-def]
    explanation, scale, part, spell, fence, before, after, indent, reverse
):
    score = 1 + part % scale
    spelled = spell.format(score, scale=scale) if isinstance(spell, str) else spell(score)
    pairs = [("explanation", explanation), ("score", spelled), ("sure", True)]
    text = json.dumps(dict(pairs[::-1] if reverse else pairs), indent=indent)
    answer = read_rating(before + fence.replace("{}", text) + after, scale)
    assert answer == (score, " ".join(explanation.split()))


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("order", [0, 1])
def test_a_stated_score_is_read_from_prose(label: str, order: int) -> None:
    lines = [label.format(4, scale=5), "Explanation: It is short, and to the point."]
    text = "\n".join(lines[::-1] if order else lines)
    assert read_rating(text, 5) == (4, "It is short, and to the point.")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "no_answer"),
        (" \n\t", "no_answer"),
        ("I cannot say.", "broken_json"),
        ("null", "broken_json"),
        ("[4]", "broken_json"),
        ("4", "broken_json"),
        ("{}", "score_missing"),
        ('```json\n{"explanation": "x"}\n```', "score_missing"),
        ('{"explanation": "x", "score": null}', "score_missing"),
        ('{"explanation": "x", "score": "five"}', "score_not_a_number"),
        ('{"explanation": "x", "score": true}', "score_not_a_number"),
        ('{"explanation": "x", "score": [4]}', "score_not_a_number"),
        ('{"explanation": "x", "score": 4.5}', "score_not_a_number"),
        ('{"explanation": "x", "score": "4.5"}', "score_not_a_number"),
        ('{"explanation": "x", "score": "3-4"}', "score_not_a_number"),
        ('{"explanation": "x", "score": NaN}', "score_not_a_number"),
        ('{"explanation": "x", "score": Infinity}', "score_not_a_number"),
        ('{"explanation": "x", "score": 1e999}', "score_not_a_number"),
        ('{"explanation": "x", "score": -1}', "score_out_of_range"),
        ('{"explanation": "x", "score": 0}', "score_out_of_range"),
        ('{"explanation": "x", "score": 6}', "score_out_of_range"),
        ('{"explanation": "x", "score": "8/10"}', "score_out_of_range"),
        ('{"explanation": "x", "score": "4/10"}', "score_out_of_range"),
        ('{"explanation": "", "score": 3}', "explanation_empty"),
        ('{"explanation": null, "score": 3}', "explanation_empty"),
        ('{"explanation": ["x"], "score": 3}', "explanation_empty"),
        ('{"score": 3}', "explanation_empty"),
        ("Score: 3", "explanation_empty"),
        ("Score: 3 or 4. It is fine.", "broken_json"),
        ("Fine.\nScore: 3-4", "broken_json"),
        ("Fine.\nScore: 3 to 4", "broken_json"),
        ("Fine.\nScore: 3.5", "score_not_a_number"),
        ("Fine.\nScore: 4/10", "score_out_of_range"),
        ("Score: 3\nFine.\nScore: 4", "broken_json"),
        # Two different objects, with any text around them.
        ('{"explanation": "x", "score": 3} {"explanation": "x", "score": 4}', "broken_json"),
        (
            '```json\n{"explanation": "x", "score": 3}\n```\nOr:\n'
            '```json\n{"explanation": "x", "score": 4}\n```',
            "broken_json",
        ),
        ('{"explanation": "x", "score": 3, "score": 4}', "broken_json"),
        ('{"explanation": "x", "score": ' + "9" * 5_000 + "}", "broken_json"),
        ('{"explanation": "x", "score": "' + "9" * 5_000 + '"}', "score_not_a_number"),
        ("Fine.\nScore: " + "9" * 5_000, "broken_json"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, name: str) -> None:
    assert refused(text) == name


def test_the_same_object_twice_says_one_thing() -> None:
    one = '{"explanation": "Fine.", "score": 3}'
    assert read_rating(f"{one}\nAgain:\n```\n{one}\n```", 5) == (3, "Fine.")


def test_limits_are_where_they_say() -> None:
    def text(length: int) -> str:
        return json.dumps({"explanation": "x" * length, "score": 3})

    assert read_rating(text(LONGEST_EXPLANATION), 5).score == 3
    assert refused(text(LONGEST_EXPLANATION + 1)) == "explanation_too_long"
    room = LONGEST_ANSWER - len(text(1))
    assert read_rating(text(1) + " " * room, 5).score == 3
    assert refused(text(1) + " " * (room + 1)) == "answer_too_long"


def test_an_explanation_can_be_stored_and_written() -> None:
    said = read_rating('{"explanation": "a\\ud800b\\u0000c\\n d", "score": 3}', 5).explanation
    assert said == "a\ufffdb\ufffdc d"


PIECES = st.sampled_from(
    [
        *"{}[]\":,`*'/\\-.0149",
        '{"score": ',
        '"explanation": "',
        "```json\n",
        "```",
        "Score: ",
        "rating is ",
        " out of ",
        "null",
        "1e999",
        "\\ud800",
        "\u0664",
        "\u00b2",
    ]
)
ANYTHING = st.one_of(st.text(), st.lists(PIECES | st.text(max_size=3), max_size=40).map("".join))


@given(text=ANYTHING, scale=SCALES)
@settings(max_examples=1500)
@example(text="Score: \u00b2", scale=5)
@example(text='{"score": 1, "explanation": "\ud800"}', scale=5)
def test_any_text_is_read_or_refused_by_name(text: str, scale: int) -> None:
    answer = outcome(read_rating, text, scale)
    if isinstance(answer, str):
        assert answer in NAMES
    else:
        assert type(answer.score) is int
        assert 1 <= answer.score <= scale
        said = answer.explanation
        assert said.encode("utf-8").decode() == " ".join(said.split()) != ""
    assert outcome(read_explanation, text).encode("utf-8")


@pytest.mark.parametrize(
    "unit",
    ["{", '{"a":', "[", '"', "*", "'", " ", "\n", "`", "```\n", "```json ", "9", "score", "score ",
     "score: ", 'score"', "score:1a", "rating is 4 ", "1/", ".0", "\\", "explanation:", ":", "a1"],
)  # fmt: skip
@pytest.mark.parametrize("start", ["", "score", "Score: 4", '{"score": "4', "```", "explanation"])
def test_an_endless_answer_is_read_quickly(unit: str, start: str) -> None:
    text = (start + unit * (LONGEST_ANSWER // len(unit)))[:LONGEST_ANSWER]
    started = time.process_time()
    for whole in (text, text[:-9] + '"}'):
        for read in (lambda said: read_rating(said, 5), read_explanation):
            assert outcome(read, whole)
    assert time.process_time() - started < 5  # a pattern that backtracks takes minutes


@pytest.mark.parametrize(
    ("text", "merged"),
    [
        ('{"explanation": "It is short."}', "It is short."),
        ('```json\n{"explanation": "It is\\n short."}\n```', "It is short."),
        ("It is short.", "It is short."),
        ("Explanation: It is short.", "It is short."),
        ("**Explanation:** It is short.", "It is short."),
    ],
)
def test_a_merged_explanation_is_read(text: str, merged: str) -> None:
    assert read_explanation(text) == merged


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "no_answer"),
        ('{"explanation": "It is', "broken_json"),
        ('{"explanation": " "}', "explanation_empty"),
        ('{"explanation": "a"} {"explanation": "b"}', "broken_json"),
    ],
)
def test_a_merged_explanation_that_cannot_be_read(text: str, name: str) -> None:
    with pytest.raises(Unreadable, match=name):
        read_explanation(text)
