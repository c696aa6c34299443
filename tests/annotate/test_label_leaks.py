"""Label leaks: which words of an explanation name a label, and the text without them."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.annotate.label_leaks import find_leaks, names_label, without_leaks


def kinds(text: str) -> list[str]:
    return [leak.kind for leak in find_leaks(text)]


@pytest.mark.parametrize(
    "text",
    [
        "It deserves 4/5.",
        "A clear 4 / 5",
        "I would say 4.5/5.",
        "That is 3/4, no more.",
        "four out of five",
        "It gets 3 out of 5 from me.",
        "3 out of 10",
        "four stars",
        "A five-star reply.",
        "rating 4",
        "Rating: 4",
        "Rating: **4**",
        "The rating is 4.",
        "rated 4",
        "rated it a four",
        "rates a 2",
        "I rate this response a solid 4",
        "score 4",
        "score of 4",
        "a score of four",
        "scores a 4",
        "scored 3 on the whole",
        "Scoring it at 2",
        'Score = "5"',
        "It is a four.",
        "a four because it is smooth",
        "a 4",
        "At best a three, since it stops short",
        "A THREE!",
    ],
)
def test_a_stated_score_is_one_leak(text: str) -> None:
    assert kinds(text) == ["score_phrase"]


@pytest.mark.parametrize(
    "word", ["label", "Labels", "labelled", "labeled", "labelling", "LABELING"]
)
def test_the_word_label(word: str) -> None:
    assert kinds(f"The {word} fits") == ["label_word"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It names 3 causes.", 1),
        ("(4)", 1),
        ("from 1 to 5", 2),
        ("1. It is short. 2. It is clear.", 2),
        ("4.", 1),
        ("#2", 1),
    ],
)
def test_a_digit_alone(text: str, count: int) -> None:
    assert kinds(text) == ["digit"] * count


@pytest.mark.parametrize(
    "text",
    [
        "14 of 45 and 2024 and 15,000",
        "4.5 metres, 3.14",
        "the 4th, B2, x1y, v1.2",
        "24/7 support, on 12/5/2020",
        "0, 6, 7, 8, 9",
        "a four part answer to two questions",
        "a one-word reply",
        "one of them rates highly",
        "The score is high and the rating fair.",
        "Ratings vary, scores differ.",
        "start, started, starry",
        "a labelless jar",
        "two sentences answer three questions",
        "4\u0665",
    ],
)
def test_what_is_no_leak(text: str) -> None:
    assert find_leaks(text) == []
    assert without_leaks(text) == text


@pytest.mark.parametrize(
    ("text", "label", "expected"),
    [
        ("Rated 4/5.", 4, True),
        ("Rated 4/5.", 3, False),
        ("It is a four.", 4, True),
        ("It is a Four.", 4, True),
        ("The label fits.", 4, False),
        ("Names 2 of the causes.", 2, True),
    ],
)
def test_a_leak_may_name_the_row_s_own_label(text: str, label: int, expected: bool) -> None:
    assert names_label(find_leaks(text), label) is expected


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("It reads well. I rate it 4/5. Nothing is odd.", "It reads well. Nothing is odd."),
        ("Score: 4\nIt reads well.\nIt is short.", "It reads well. It is short."),
        ("1. It reads well. 2. It is short.", "It reads well. It is short."),
        ('He says "a four." It reads well!', "It reads well!"),
        ("Is it a 4? It reads well.", "It reads well."),
        # All sentences leak, so only the leaking words are removed.
        ("It reads well and so earns a score of 4.", "It reads well and so earns a ."),
        ("Names 3 causes. Covers 2 effects.", "Names causes. Covers effects."),
        # A score that spans two lines is in neither of the two sentences.
        ("It is rated\nfour by me.", "It is by me."),
        # The text has no other word.
        ("4/5", ""),
        ("Rating: 4. 4/5!", ""),
    ],
)
def test_text_without_leaks(text: str, left: str) -> None:
    assert without_leaks(text) == left


WORDS = [
    *("It", "reads", "well", ".", "!", "?", "4", "3/5", "four", "rated", "score", "of", "a"),
    *("label", "five", "out", "14", "4.5", "one", "(2)", "stars", ":", "**", "-", "because", '"'),
]
PIECES = st.lists(st.sampled_from([*WORDS, "\n"]), max_size=30).map(" ".join)


@given(st.one_of(PIECES, st.text()))
def test_nothing_names_a_label_afterwards(text: str) -> None:
    left = without_leaks(text)
    if find_leaks(text):
        assert find_leaks(left) == []
        assert not left or any(character.isalpha() for character in left)
    else:
        assert left == text
    assert without_leaks(left) == left
    # Every word that is left is in the text, in the same order.
    words = iter(re.findall(r"\w+", text))
    assert all(word in words for word in re.findall(r"\w+", left))


@given(PIECES)
def test_the_rule_knows_no_label(text: str) -> None:
    """Every digit is removed alike, so a removed digit gives no hint of the label."""
    other = text.translate(str.maketrans("123", "231"))
    assert kinds(other) == kinds(text)
    assert without_leaks(other) == without_leaks(text).translate(str.maketrans("123", "231"))


@pytest.mark.parametrize(
    "unit", ["rate ", "rate it ", "a ", "4 ", "4/", "score is ", "*", ". ", "\n"]
)
def test_a_long_text_is_read_in_a_moment(unit: str) -> None:
    text = "rated " + unit * (100_000 // len(unit))
    started = time.process_time()
    find_leaks(text)
    without_leaks(text)
    assert time.process_time() - started < 5  # a pattern that backtracks takes minutes
