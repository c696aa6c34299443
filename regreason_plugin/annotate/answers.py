"""Reading a score and an explanation from a language model's answer.

Thinking is stripped first. An answer with a brace is JSON: it is read as it is, or mended if it has
only one meaning. An answer without a brace is prose. All others are refused, by the name of the
fault.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from regreason_plugin.annotate.answer_json import BrokenJsonError, read_object
from regreason_plugin.annotate.refusals import is_refusal
from regreason_plugin.annotate.thinking import strip_thinking
from regreason_plugin.data.text_cleaning import clean

# In characters. A model that never stops writing gives megabytes, which are not worth a search.
LONGEST_ANSWER = 100_000
LONGEST_EXPLANATION = 5_000

# A code fence around the whole answer.
_FENCE = re.compile(r"\A```\w*\s|```\Z")
# Every repetition is bounded: a model that never stops writes the same character 100,000 times.
_STATED = re.compile(
    r"""\b(?:score|rating)\b["'*]{0,4}(?:\s{0,9}(?:is|of|[:=]))?\s{0,9}["'*]{0,4}\s{0,9}"""
    r"(\d{1,9}(?:\.\d{1,9})?)(?:\s{0,9}(?:/|out\s{1,9}of)\s{0,9}(\d{1,9}))?"
    # Rejects "3 or 4" and "3-4".
    r"(?![\w.]{0,99}\d|\s{0,9}(?:-|\u2013|to|or|and)\s{0,9}\d)",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"^\W*(?:explanation|reason(?:ing)?|justification)\b[\s*_]{0,9}:[\s*_>|]{0,9}", re.IGNORECASE
)
_QUOTED = re.compile(r"\A([\"'])([^\"]*)\1\Z|\A\u201c([^\u201c\u201d]*)\u201d\Z")
_NUMBER = re.compile(
    r"(\d{1,9})(?:\.0{1,9})?(?:\s{0,9}(?:/|out\s{1,9}of)\s{0,9}(\d{1,9}))?", re.IGNORECASE
)
# Sequences that colour a terminal, and characters that turn the writing direction or mark the
# byte order. `clean` takes the other control characters.
_HIDDEN = re.compile(
    r"\x1b(?:\[[0-?]{0,99}[ -/]{0,9}[@-~]|\][^\x07\x1b]{0,999}(?:\x07|\x1b\\)|[@-Z^_])?"
    r"|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
# Words in the place of an explanation, without punctuation and in lower case.
_PLACEHOLDERS = {
    *("na", "none", "null", "nil", "nan", "undefined", "string", "text", "todo", "tbd"),
    *("explanation", "your explanation", "no explanation", "json object"),
}

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)")


class Unreadable(Exception):  # noqa: N818 - an outcome, not an error of ours
    """An answer that cannot be used; the exception's text is the call's state in the store."""


class Answer(NamedTuple):
    """A rater's score and explanation.

    Attributes:
        score: The score, on the prompt's scale; None if the question asked for none.
        explanation: The explanation, on one line.
        mended: Whether the answer's JSON was mended.
    """

    score: int | None
    explanation: str
    mended: bool = False


def read_rating(text: str, scale: int) -> Answer:
    """Read a score and an explanation.

    Args:
        text: The model's answer.
        scale: The highest score of the scale.

    Raises:
        Unreadable: The answer cannot be used. The exception's text is ``answer_too_long``,
            ``no_answer``, ``only_thinking``, ``refused``, ``broken_json``, ``score_missing``,
            ``score_not_a_number``, ``score_out_of_range``, ``explanation_empty`` or
            ``explanation_too_long``.
    """
    text = _answer(text)
    value, mended = _object(text, "score") or (_stated(text), False)
    explanation = value.get("explanation")
    if isinstance(explanation, str) and is_refusal(explanation):
        raise Unreadable("refused")
    score = _score(value.get("score"), scale)
    # Without its last brace, an answer may have lost the 0 of a 10.
    if mended and text[-1].isdigit() and 10 * score <= scale:
        raise Unreadable("broken_json")
    return Answer(score, _explanation(explanation), mended)


def read_explanation(text: str) -> Answer:
    """Read an explanation from an answer that has no score.

    Raises:
        Unreadable: The answer cannot be used; see `read_rating`, without the names about scores.
    """
    text = _answer(text)
    prose = {"explanation": _prose(_FENCE.sub("", text))}
    value, mended = _object(text, "explanation") or (prose, False)
    explanation = value.get("explanation")
    if isinstance(explanation, str) and is_refusal(explanation):
        raise Unreadable("refused")
    return Answer(None, _explanation(explanation), mended)


def cut_words(text: str, limit: int) -> tuple[str, bool]:
    """Cut a text to at most ``limit`` words, after a whole sentence if there is one.

    Returns:
        The text, and whether it was cut.
    """
    words = text.split()
    if len(words) <= limit:
        return text, False
    head = " ".join(words[:limit])
    ends = [match.end() for match in _SENTENCE_END.finditer(head + " ")]
    return (head[: ends[-1]] if ends else head), True


def _answer(text: str) -> str:
    """The answer without thinking and the white space around it."""
    if not text.strip():
        raise Unreadable("no_answer")
    text = strip_thinking(text)
    if len(text) > LONGEST_ANSWER:
        raise Unreadable("answer_too_long")
    if not text.strip():
        raise Unreadable("only_thinking")
    return text.strip()


def _object(text: str, key: str) -> tuple[dict[str, Any], bool] | None:
    try:
        return read_object(text, key)
    except BrokenJsonError:
        raise Unreadable("broken_json") from None


def _stated(text: str) -> dict[str, Any]:
    """Read ``Score: 4`` in prose; all lines without a score are the explanation."""
    stated = list(_STATED.finditer(text))
    scores = {match[1] + (f"/{match[2]}" if match[2] else "") for match in stated}
    if len(scores) != 1:
        raise Unreadable("refused" if is_refusal(_prose(text)) else "broken_json")
    rest = [line for line in text.splitlines() if not _STATED.search(line)]
    return {"score": scores.pop(), "explanation": _prose(" ".join(rest).strip(" `"))}


def _prose(text: str) -> str:
    """An explanation without the word before it and the quotes around it."""
    text = _LEAD.sub("", text).strip()
    quoted = _QUOTED.match(text)
    return (quoted[2] or quoted[3] or "") if quoted else text


def _score(value: Any, scale: int) -> int:
    if value is None:
        raise Unreadable("score_missing")
    if isinstance(value, str) and (match := _NUMBER.fullmatch(value.strip())):
        if match[2] and int(match[2]) != scale:
            raise Unreadable("score_out_of_range")
        value = int(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise Unreadable("score_not_a_number")
    if not 1 <= value <= scale:
        raise Unreadable("score_out_of_range")
    return int(value)


def _explanation(value: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    # Cleaned when it is one line, because `clean` drops white space other than tabs and line ends.
    text = " ".join(clean(_HIDDEN.sub("", text)).split())
    words = "".join(one for one in text.casefold() if one.isalpha() or one == " ").strip()
    if not words or words in _PLACEHOLDERS:
        raise Unreadable("explanation_empty")
    if len(text) > LONGEST_EXPLANATION:
        raise Unreadable("explanation_too_long")
    return text
