from __future__ import annotations

import gzip
import json
import random
import time
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import islice

import pytest
from helpers.real_prompts import FILES
from hypothesis import given, settings
from hypothesis import strategies as st

from regreason_plugin.annotate.aggregate import aggregate_rows
from regreason_plugin.annotate.raters import PROMPTS
from regreason_plugin.annotate.rule_features import read
from regreason_plugin.annotate.rules import RULE_RATERS, RULES_NOTE, rate
from regreason_plugin.annotate.scores import rescale, round_half_up
from regreason_plugin.core.paper import AXES
from regreason_plugin.core.prompt import one_line
from regreason_plugin.core.records import Conversation, Rated, RaterScore, Rating, Turn
from regreason_plugin.data.mini import mini_conversations

HH = FILES["hh"]


def talk(
    answer: str, request: str = "Tell me the price, size and colour of the lamp."
) -> Conversation:
    return Conversation(
        id="x",
        dataset="hh_chosen",
        group="g",
        conversation=[Turn(role="user", content=request), Turn(role="assistant", content=answer)],
    )


def aggregate(ratings: list[RaterScore]) -> Rating | None:
    """The label of one row by the mean; None without a usable rating."""
    row = Rated(**dict(talk("Yes.")), axis="on_topic", ratings=ratings)
    return next(aggregate_rows(lambda: [row]), None)


def reading(answer: str, request: str = "Tell me the price, size and colour of the lamp."):  # type: ignore[no-untyped-def]
    return read(tuple(talk(answer, request).conversation), None)


def label(conversation: Conversation, axis: str) -> int:
    return next(r.label for r in rate([conversation]) if r.axis == axis)


# --- aggregation ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "scale", "expected"),
    [
        (1, 4, 1),
        (2, 4, 7 / 3),
        (3, 4, 11 / 3),
        (4, 4, 5),
        (1, 5, 1),
        (3, 5, 3),
        (5, 5, 5),
        (5.5, 10, 3),
    ],
)
def test_rescale(score: float, scale: int, expected: float) -> None:
    assert rescale(score, scale) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, 1), (1.49, 1), (1.5, 2), (2.5, 3), (3.5, 4), (4.5, 5), (3.4999999999999996, 4)],
)
def test_round_half_up(value: float, expected: int) -> None:
    assert round_half_up(value) == expected


SCORES = st.lists(
    st.tuples(st.sampled_from([4, 5]), st.integers(1, 5)).map(lambda p: (p[0], min(p))),
    min_size=1,
    max_size=12,
)


@given(SCORES, st.randoms(use_true_random=False))
def test_aggregate_against_exact_fractions(
    scores: list[tuple[int, int]], shuffler: random.Random
) -> None:
    entries = [
        RaterScore(rater=f"r{n}", prompt="p", scale=scale, score=score, explanation=f"e{n}")
        for n, (scale, score) in enumerate(scores)
    ]
    exact = [1 + Fraction(4 * (score - 1), scale - 1) for scale, score in scores]
    mean = sum(exact) / len(exact)
    expected = int(mean + Fraction(1, 2))  # truncation is the floor here
    verdict = aggregate(entries)
    assert verdict is not None
    assert verdict.label == expected
    assert verdict.score == pytest.approx(float(mean))
    distance = abs(exact[int(verdict.explanation[1:])] - expected)
    assert distance == min(abs(value - expected) for value in exact)
    shuffled = entries.copy()
    shuffler.shuffle(shuffled)
    again = aggregate(shuffled)
    assert again is not None
    assert (again.score, again.label, again.explanation) == (
        verdict.score,
        verdict.label,
        verdict.explanation,
    )


def test_of_equally_near_explanations_the_first_by_name_is_taken() -> None:
    twins = [
        RaterScore(rater=name, prompt="p", scale=5, score=3, explanation=name)
        for name in ("beth", "adam", "carl")
    ]
    verdict = aggregate(twins)
    assert verdict is not None
    assert verdict.explanation == "adam"


def test_errors_do_not_count() -> None:
    failed = RaterScore(rater="a", prompt="p", scale=5, error="timed out")
    fine = RaterScore(rater="b", prompt="p", scale=5, score=2, explanation="Short.")
    assert aggregate([failed]) is None
    verdict = aggregate([failed, fine])
    assert verdict is not None
    assert (verdict.score, verdict.label, verdict.explanation) == (2.0, 2, "Short.")


# --- features ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "flaw"),
    [
        ("The the lamp is red.", "doubled"),
        ("It costs costs much.", "doubled"),
        ("Lamp the is red.", "misplaced"),
        ("We like lamp a.", "at the end"),
        ("The aforesaid lamp is red.", "stilted"),
        ("The lamp is red", "without its end"),
        (" ".join(["word", "lamp"] * 15) + ".", "too long"),
        ("I hope this brings you joy. Is there anything else?", "stock phrase"),
        ("He went to the shop. She went to the shop.", ""),
        ("Then he went to the old shop. So he went to the old shop.", "said twice"),
        ("It had had its day.", ""),
        ("The lamp is red.", ""),
    ],
)
def test_flaws(sentence: str, flaw: str) -> None:
    flaws = reading(sentence).flaws
    assert any(flaw in seen.what for seen in flaws) if flaw else not flaws


def test_answers_are_those_to_the_listed_things() -> None:
    seen = reading("The lamp comes in many colours, and its size is small.")
    assert seen.asked == ("price", "size", "colour")
    assert seen.answered == ("size", "colour")


def test_without_a_list_the_content_words_are_asked() -> None:
    seen = reading("Butterflies live in gardens.", "Where do I see butterflies in Oregon?")
    assert seen.asked == ("butterflies", "oregon")
    assert seen.answered == ("butterflies",)


def test_a_request_without_content_falls_back_to_the_one_before() -> None:
    turns = (
        Turn(role="user", content="What is cabbage?"),
        Turn(role="assistant", content="Food."),
        Turn(role="user", content="And then?"),
        Turn(role="assistant", content="Cabbage is a plant."),
    )
    assert read(turns, None).asked == ("cabbage",)


def test_sentences_on_and_off_the_topic() -> None:
    seen = reading("The lamp is red. It glows. My dog barks. Yes, of course. A bus came.")
    assert (seen.placed, seen.stayed, seen.topic) == (4, 2, "lamp")
    assert seen.strays == ("dog", "bus")


def test_the_context_is_what_was_asked_about_too() -> None:
    turns = (
        Turn(role="user", content="Who?"),
        Turn(role="assistant", content="The violin was hers."),
    )
    assert read(turns, "Mara found a violin.").stayed == 1
    assert read(turns, None).stayed == 0


@pytest.mark.parametrize(
    ("axis", "good", "bad"),
    [
        ("naturalness", "The lamp is red. It is big.", "The the lamp red a. Is is hereby a the."),
        (
            "comprehensiveness",
            "Its price, size and colour are fine for a lamp.",
            "Who knows what a lamp is.",
        ),
        ("on_topic", "The lamp is red. The lamp is big.", "My dog barks. A bus came by."),
    ],
)
def test_a_good_answer_gets_a_better_label(axis: str, good: str, bad: str) -> None:
    assert label(talk(good), axis) == 5
    assert label(talk(bad), axis) == 1


# --- the raters -------------------------------------------------------------------------


def test_three_raters_say_what_they_are() -> None:
    assert len(RULE_RATERS) >= 3
    assert all(rater.name.startswith("rules-") for rater in RULE_RATERS)
    assert {prompt.scale for prompt in PROMPTS} == {4, 5}
    assert "no language model" in RULES_NOTE


@pytest.fixture(scope="module")
def sample() -> list[Conversation]:
    return [c for n, c in enumerate(mini_conversations(3, 150)) if n % 3 == 0]


def test_meta_is_never_read(sample: list[Conversation]) -> None:
    with_meta = [(r.label, r.score, r.ratings) for r in rate(sample)]
    stripped = [c.model_copy(update={"meta": None}) for c in sample]
    assert [(r.label, r.score, r.ratings) for r in rate(stripped)] == with_meta


def test_ratings_do_not_depend_on_what_was_rated_before(sample: list[Conversation]) -> None:
    forward = {(r.id, r.axis): r for r in rate(sample)}
    backward = {(r.id, r.axis): r for r in rate(sample[::-1])}
    assert forward == backward


def test_raters_differ_in_leaning_and_waver(sample: list[Conversation]) -> None:
    sums: dict[str, float] = defaultdict(float)
    disagreements = 0
    for rating in rate(sample):
        assert [r.rater for r in rating.ratings] == [r.name for r in RULE_RATERS for _ in PROMPTS]
        for entry in rating.ratings:
            assert entry.score is not None
            assert 1 <= entry.score <= entry.scale
            assert entry.score == int(entry.score)
            sums[entry.rater] += rescale(entry.score, entry.scale)
        disagreements += len({r.score for r in rating.ratings if r.scale == 5}) > 1
    assert sums["rules-strict"] < sums["rules-even"] < sums["rules-lenient"]
    assert disagreements > 100


def test_one_rating_an_axis_as_they_come() -> None:
    taken = 0

    def counted() -> object:
        nonlocal taken
        for conversation in mini_conversations(0, 10):
            taken += 1
            yield conversation

    stream = rate(counted())  # type: ignore[arg-type]
    assert [r.axis for r in islice(stream, 4)] == [*AXES, next(iter(AXES))]
    assert taken == 2


def check_explanation(rating: Rating) -> None:
    text = rating.explanation
    assert 10 <= len(text.split()) <= 25, text
    assert one_line(text) == text
    assert text in {entry.explanation for entry in rating.ratings}


def test_explanations_are_short_varied_and_name_no_label(sample: list[Conversation]) -> None:
    texts = Counter()
    for rating in rate(sample):
        check_explanation(rating)
        assert not any(digit in rating.explanation for digit in "0123456789")
        texts[rating.explanation] += 1
    assert len(texts) > 0.6 * len(sample)


def test_an_explanation_names_what_was_seen() -> None:
    answer = "The lamp has a small size. My uncle has a a dog."
    by_axis = {r.axis: r.explanation for r in rate([talk(answer)])}
    assert "'a a'" in by_axis["naturalness"]
    assert "size" in by_axis["comprehensiveness"]
    assert "price" in by_axis["comprehensiveness"]
    assert "lamp" in by_axis["on_topic"]
    assert "uncle" in by_axis["on_topic"]


@given(answer=st.text(min_size=1).filter(str.strip), request=st.text())
@settings(max_examples=200)
def test_any_text_is_rated(answer: str, request: str) -> None:
    for rating in rate([talk(answer, request)]):
        assert 1 <= rating.label <= 5
        assert one_line(rating.explanation) == rating.explanation


@pytest.mark.parametrize("unit", ["a, ", "lamp ", " ", ".", "\n ", "x", "'", "(", "...\n"])
def test_a_hundred_thousand_characters_are_read_in_a_moment(unit: str) -> None:
    text = "Lamp. " + unit * (100_000 // len(unit))
    started = time.process_time()
    assert len(list(rate([talk(text, text)]))) == 3
    assert time.process_time() - started < 5  # a pattern that backtracks takes minutes


@pytest.mark.skipif(not HH.exists(), reason="the real HH-RLHF file is not beside the checkout")
def test_labels_of_real_text_are_spread() -> None:
    labels: dict[str, Counter[int]] = defaultdict(Counter)
    with gzip.open(HH, "rt", encoding="utf-8") as stream:
        for line in islice(stream, 500):
            request, _, answer = json.loads(line)["chosen"].rpartition("\n\nAssistant:")
            request = request.rpartition("\n\nHuman:")[2]
            if answer.strip():
                for rating in rate([talk(answer.strip(), request.strip())]):
                    labels[rating.axis][rating.label] += 1
                    check_explanation(rating)
    for counts in labels.values():
        assert max(counts.values()) < 0.6 * sum(counts.values())
        assert sum(count >= 0.05 * sum(counts.values()) for count in counts.values()) >= 3
