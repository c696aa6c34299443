"""Reading a score and an explanation from a language model's answer.

A server that does not support JSON schemas may wrap the JSON object in a code fence or in prose, or
omit the braces. Such answers are read if they have only one meaning; ambiguous answers are
refused.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

# In characters. A model that never stops writing gives megabytes, which are not worth a search.
LONGEST_ANSWER = 100_000
LONGEST_EXPLANATION = 5_000

# A code fence around the whole answer; an object inside prose is found by its braces instead.
_FENCE = re.compile(r"\A```\w*\s|```\Z")
# Every repetition is bounded: a model that never stops writes the same character 100,000 times.
_STATED = re.compile(
    r"""\b(?:score|rating)\b["'*]{0,4}(?:\s{0,9}(?:is|of|[:=]))?\s{0,9}["'*]{0,4}\s{0,9}"""
    r"(\d{1,9}(?:\.\d{1,9})?)(?:\s{0,9}(?:/|out\s{1,9}of)\s{0,9}(\d{1,9}))?"
    # Rejects "3 or 4" and "3-4".
    r"(?![\w.]{0,99}\d|\s{0,9}(?:-|\u2013|to|or|and)\s{0,9}\d)",
    re.IGNORECASE,
)
_LEAD = re.compile(r"^\W*(?:explanation|reason(?:ing)?|justification)\W*:\W*", re.IGNORECASE)
_NUMBER = re.compile(
    r"(\d{1,9})(?:\.0{1,9})?(?:\s{0,9}(?:/|out\s{1,9}of)\s{0,9}(\d{1,9}))?", re.IGNORECASE
)
_LONE = re.compile("[\x00\ud800-\udfff]")

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)")


class Unreadable(Exception):  # noqa: N818 - an outcome, not an error of ours
    """An answer that cannot be used; the exception's text is the call's state in the store."""


class Answer(NamedTuple):
    """A rater's score and explanation."""

    score: int
    explanation: str


def read_rating(text: str, scale: int) -> Answer:
    """Read a score and an explanation.

    Args:
        text: The model's answer.
        scale: The highest score of the scale.

    Raises:
        Unreadable: The answer cannot be used. The exception's text is ``answer_too_long``,
            ``no_answer``, ``broken_json``, ``score_missing``, ``score_not_a_number``,
            ``score_out_of_range``, ``explanation_empty`` or ``explanation_too_long``.
    """
    answer = _object(text, "score")
    if answer is None:
        answer = _stated(text)
    score = _score(answer.get("score"), scale)
    return Answer(score, _explanation(answer.get("explanation")))


def read_explanation(text: str) -> str:
    """Read an explanation from an answer that has no score.

    Raises:
        Unreadable: The answer cannot be used; see `read_rating`, without the names about scores.
    """
    answer = _object(text, "explanation")
    if answer is None:
        if "{" in text:
            raise Unreadable("broken_json")
        answer = {"explanation": _LEAD.sub("", text)}
    return _explanation(answer.get("explanation"))


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


def _object(text: str, key: str) -> dict[str, Any] | None:
    """The only JSON object with the key anywhere in the text; None if there is none."""
    if len(text) > LONGEST_ANSWER:
        raise Unreadable("answer_too_long")
    if not text.strip():
        raise Unreadable("no_answer")
    decoder = json.JSONDecoder(object_pairs_hook=_without_twins)
    try:
        value = decoder.decode(_FENCE.sub("", text.strip()))
    except (ValueError, RecursionError):
        pass
    else:
        if isinstance(value, dict):
            return value
    objects: list[dict[str, Any]] = []
    start = text.find("{")
    tried = 0
    while start >= 0 and tried < 100:
        tried += 1
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if isinstance(value, dict) and key in value:
                objects.append(value)
        start = text.find("{", end)
    if len(objects) > 1 and any(one != objects[0] for one in objects):
        raise Unreadable("broken_json")
    return objects[0] if objects else None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("the object has a name twice")
    return value


def _stated(text: str) -> dict[str, Any]:
    """Read ``Score: 4`` in prose; all lines without a score are the explanation."""
    stated = list(_STATED.finditer(text))
    scores = {match[1] + (f"/{match[2]}" if match[2] else "") for match in stated}
    if len(scores) != 1:
        raise Unreadable("broken_json")
    rest = [line for line in text.splitlines() if not _STATED.search(line)]
    return {"score": scores.pop(), "explanation": _LEAD.sub("", " ".join(rest).strip(" {}`"))}


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
    # JSON can spell a lone surrogate, which neither the store nor a UTF-8 file accepts.
    text = _LONE.sub("\ufffd", " ".join(value.split())) if isinstance(value, str) else ""
    if not text:
        raise Unreadable("explanation_empty")
    if len(text) > LONGEST_EXPLANATION:
        raise Unreadable("explanation_too_long")
    return text
