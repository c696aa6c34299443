"""Reading a model's answer: which answers are read, and which are refused."""

from __future__ import annotations

import json
import re
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
from regreason_plugin.annotate.refusals import is_refusal

# The names of unreadable answers, as docs/guides/annotate.md and the module list them.
NAMES = {
    "answer_too_long",
    "no_answer",
    "only_thinking",
    "refused",
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
    .filter(lambda text: any(map(str.isalpha, text)))
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
    assert answer == (score, " ".join(explanation.split()), False)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("order", [0, 1])
def test_a_stated_score_is_read_from_prose(label: str, order: int) -> None:
    lines = [label.format(4, scale=5), "Explanation: It is short, and to the point."]
    text = "\n".join(lines[::-1] if order else lines)
    assert read_rating(text, 5) == (4, "It is short, and to the point.", False)


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
        ('{"explanation": "x", "score": ' + "9" * 5_000 + "}", "score_not_a_number"),
        ('{"explanation": "x", "score": "' + "9" * 5_000 + '"}', "score_not_a_number"),
        ("Fine.\nScore: " + "9" * 5_000, "broken_json"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, name: str) -> None:
    assert refused(text) == name


def test_the_same_object_twice_says_one_thing() -> None:
    one = '{"explanation": "Fine.", "score": 3}'
    assert read_rating(f"{one}\nAgain:\n```\n{one}\n```", 5) == (3, "Fine.", False)


@pytest.mark.parametrize(("scale", "read"), [(9, (1, "Fine.", True)), (10, "broken_json")])
def test_the_0_of_a_10_may_have_been_cut_with_the_brace(scale: int, read: Any) -> None:
    text = '{"explanation": "Fine.", "score": 1'
    assert outcome(read_rating, text, scale) == read
    assert outcome(read_rating, text + ",}", 10) == (1, "Fine.", True)


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
    assert said == "a\ufffdbc d"


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
        "<think>",
        "</think>",
        "<|channel|>final<|message|>",
        "'explanation': 'It's so', ",
        "\x1b[31m",
        "\u202e",
        "I'm sorry, but I can't help",
        "//",
        "/*",
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
    explained = outcome(read_explanation, text)
    assert explained in NAMES or explained.explanation.encode("utf-8")


UNITS = [
    *("{", '{"a":', "[", '"', "*", "'", " ", "\n", "`", "```\n", "```json ", "9", "\\", ":", "a1"),
    *("score", "score ", "score: ", 'score"', "score:1a", "rating is 4 ", "1/", ".0"),
    *("explanation:", "explanation: '", " '", "'s ", '\\"', "/*", "// ", "I'm sorry "),
    *("<think>", "</think>", "{</think>", "<|channel|>final", "\x1b[", "\x1b]"),
]
STARTS = [
    *("", "score", "Score: 4", '{"score": "4', "```", "explanation"),
    *('{"explanation": "', "{'explanation': '", "I'm sorry, "),
]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("start", STARTS)
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
    assert read_explanation(text) == (None, merged, False)


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


REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I\u2019m sorry, but I can\u2019t assist with that request.",
    "I am sorry, I cannot comply with this request.",
    "Sorry, I can't do that.",
    "Sorry, but I am unable to provide an explanation.",
    "I'm sorry.",
    "I apologize, but I cannot provide that information.",
    "I apologize for the inconvenience.",
    "My apologies, but I can't engage with this content.",
    "I'm really sorry, but I won't be able to help you find that.",
    "Unfortunately, I cannot assist with this.",
    "I'm afraid I can't do that.",
    "I cannot assist with rating conversations of this kind.",
    "I can't help with that. Is there anything else that I can do for you?",
    "I can't assist with that.",
    "I cannot fulfill your request. I'm just an AI, and it is not within my guidelines.",
    "I'm unable to discuss this topic.",
    "I will not produce harmful content.",
    "I won't engage with this.",
    "I must decline to answer this question.",
    "I do not feel comfortable writing about this.",
    "I cannot evaluate this conversation.",
    "As an AI language model, I cannot have opinions on people.",
    "As an AI language model, I don't have personal opinions.",
    "As an AI, I am not able to judge this conversation.",
    "I'm just an AI, I can't rate people.",
    "Sorry, that's not something I can help with.",
    "This request violates our content policy.",
    "\"I'm sorry, but I can't help with that.\"",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Leider kann ich diese Anfrage nicht beantworten.",
    "Entschuldigung, aber ich kann dir dabei nicht helfen.",
    "Als KI-Sprachmodell kann ich keine Meinung haben.",
    "Ich kann Ihnen bei dieser Anfrage leider nicht weiterhelfen.",
    "Je suis d\u00e9sol\u00e9, mais je ne peux pas vous aider avec cela.",
    "D\u00e9sol\u00e9, je ne peux pas r\u00e9pondre \u00e0 cette question.",
    "En tant qu'intelligence artificielle, je ne peux pas juger.",
    "Je ne peux pas vous aider.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Lamentablemente, no puedo responder a esta solicitud.",
    "Como modelo de lenguaje, no puedo opinar.",
    "No puedo ayudarte con eso.",
    "\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u534f\u52a9\u60a8\u3002",
    "\u5bf9\u4e0d\u8d77\uff0c\u6211\u4e0d\u80fd\u63d0\u4f9b\u8fd9\u4e9b\u4fe1\u606f\u3002",
    "\u6211\u65e0\u6cd5\u56de\u7b54\u8fd9\u4e2a\u95ee\u9898\u3002",
]
NO_REFUSALS = [
    "The assistant's reply is a refusal: it says it can't help.",
    "The assistant says that it is sorry, but it can't help.",
    "'I'm sorry, but I can't help with that.' is all that the assistant says.",
    '"I cannot assist with that" is polite, but it leaves the question open.',
    "It apologizes and gives no answer.",
    "It refuses, so it is not comprehensive.",
    "Refusing is right here, as the user asks for something dangerous.",
    "Sorry is the first word of the reply, which sounds natural.",
    "Sorry, but the reply misses the point.",
    "The reply begins with 'As an AI language model, I cannot', which sounds stiff.",
    "As an AI assistant, the speaker stays polite.",
    "As an AI would, the assistant lists everything.",
    "I cannot find anything unnatural in the reply.",
    "I can't see a connection between the question and the answer.",
    "I can't give more than a 3, because the reply is short.",
    "I cannot give it a higher score, because it ignores the question.",
    "I cannot rate this higher than 2, because it ignores the question.",
    "I can't tell if it is meant as a joke.",
    "I would rate it 4, as it covers all points.",
    "I think that the reply helps the user.",
    "I'm sorry to say that the reply, though friendly, is off topic.",
    "Unfortunately, the reply does not answer the question.",
    "Unfortunately, the assistant cannot help, so the reply is short.",
    "Unable to help, the assistant names a hotline.",
    "Cannot be understood without the context, but it is on topic.",
    "It can't help that the user is rude, and stays calm.",
    "The user asks for help, and the assistant won't assist.",
    "Leider antwortet der Assistent nicht auf die Frage.",
    "Der Assistent sagt, dass er nicht helfen kann.",
    "Ich kann keinen Fehler finden.",
    "Malheureusement, la r\u00e9ponse ne traite pas la question.",
    "Je ne vois pas de lien avec la question.",
    "L'assistant dit qu'il ne peut pas aider.",
    "Lamentablemente, la respuesta no trata la pregunta.",
    "No puedo encontrar ning\u00fan error.",
    "El asistente dice que no puede ayudar.",
    "\u52a9\u624b\u8bf4\u62b1\u6b49\uff0c\u65e0\u6cd5\u63d0\u4f9b\u5e2e\u52a9\u3002",
    "\u5f88\u62b1\u6b49\uff0c\u52a9\u624b\u6ca1\u6709\u56de\u7b54\u95ee\u9898\u3002",
    "I can't help with that. " + "It explains at length why the reply is good. " * 20,
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_no_explanation(text: str) -> None:
    assert is_refusal(text)
    assert outcome(read_explanation, text) == "refused"
    for score in (3, None):
        assert refused(json.dumps({"explanation": text, "score": score})) == "refused"


@pytest.mark.parametrize("text", NO_REFUSALS)
def test_words_about_a_refusal_are_an_explanation(text: str) -> None:
    assert not is_refusal(text)
    said = json.dumps({"explanation": text, "score": 3})
    assert read_rating(said, 5) == (3, text.strip(), False)


def folded(text: str) -> str:
    return " ".join(text.split())


# What a broken object is made of: the parts of good ones, whole and cut, and small things between.
PARTS = st.sampled_from(
    [
        *(
            '{"explanation": "',
            "{'explanation': '",
            "{explanation: ",
            '"explanation": "',
            "It's so",
        ),
        *('"score": 4', "'score': 4", "score: 4", '", ', "', ", ",}", '"}', "'}", "{", "}", ", "),
        *("\n", " ", '"', "'", "// yes\n", "/* no */", "and more", '\\"', "\\n", "4", "```"),
    ]
)


@given(parts=st.lists(PARTS, min_size=2, max_size=9), cut=st.integers(0, 12))
@settings(max_examples=3000)
@example(parts=['{"explanation": "', "It's so", '", ', '"score": 4', ",}"], cut=0)
def test_an_explanation_stands_in_the_answer_between_quotes(parts: list[str], cut: int) -> None:
    text = "".join(parts)
    text = text[: len(text) - cut]
    answer = outcome(read_rating, text, 5)
    if "{" not in text or isinstance(answer, str):
        return
    sent = folded(text.replace('\\"', '"').replace("\\n", " "))
    assert re.search(f"([\"'] ?){re.escape(answer.explanation)} ?[\"']", sent)
    assert answer.mended == (strict(text) is None)


def strict(text: str) -> object:
    """The object that stands in a text as strict JSON; None if there is none."""
    for start in (match.start() for match in re.finditer("{", text)):
        try:
            return json.JSONDecoder().raw_decode(text, start)[0]
        except ValueError:
            continue
    return None


@given(explanation=EXPLANATIONS, scale=SCALES, data=st.data())
@settings(max_examples=500)
def test_a_cut_object_is_read_whole_or_refused(explanation: str, scale: int, data: Any) -> None:
    score_first = data.draw(st.booleans())
    pairs = [("explanation", explanation), ("score", 4)]
    text = json.dumps(dict(pairs[::-1] if score_first else pairs), ensure_ascii=False)
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    answer = outcome(read_rating, cut, scale)
    if not isinstance(answer, str):
        assert answer == (4, folded(explanation), True)
