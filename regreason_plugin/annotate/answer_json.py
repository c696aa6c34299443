"""The JSON object in a model's answer: read as it is, or mended where it has only one meaning.

The library json-repair mends. It guesses, so its result is used only if nothing was lost and
nothing was guessed: the object has no other names than those asked for, it holds every letter and
digit of the answer's object (comments aside), and the explanation stands whole between its quotes.
"""

from __future__ import annotations

import json
import re
from typing import Any

_NAMES = {"explanation", "score"}
_NAMED = re.compile("|".join(sorted(_NAMES)))
# Braces in an answer that are tried as the start of an object.
_MOST_BRACES = 100
# In characters. What is longer is not mended: no rating is, and mending is slow.
_LONGEST_MENDED = 10_000

_BEGINS = re.compile(r"\{\s*[\"'\u201c\u2018]?\w+[\"'\u201d\u2019]?\s*:")
_BRACELESS = re.compile(r"[\"'\u201c](?:explanation|score)[\"'\u201d]\s*:")
# A whole string; an apostrophe inside a word does not end one.
_DOUBLE = r'"((?:[^"\\]|\\.)*)"'
_SINGLE = r"'((?:[^'\\]|\\.|(?<=\w)'(?=\w))*)'"
_STRING_OR_COMMENT = re.compile(
    rf"(\\.|{_DOUBLE}|(?<=[\s:,{{]){_SINGLE}(?=\s*[,:}}]))"
    r"|(?<!:)//[^\n]*|/\*.{0,500}?\*/|(?<=\s)#[^\n]*",
    re.DOTALL,
)
_EXPLANATION = re.compile(
    rf"\bexplanation[\"'\u201d\u2019]?\s*:\s*"
    rf"(?:{_DOUBLE}|{_SINGLE}|\u201c([^\"\u201c\u201d]*)\u201d)"
    r"\s*(?=[,}]|[\"'\u201c]?score\b|\Z)",
    re.DOTALL,
)
# The end of an object that has lost only its last brace.
_WHOLE_END = re.compile(r"(?:[\"'\u201d,]|:\s*\d{1,9})\Z")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
# After a backslash, every other character means nothing, so both are kept: models write LaTeX.
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"} | {one: one for one in "\"'/\\"}
_NO_LETTER = re.compile(r"[\W_]+")


class BrokenJsonError(ValueError):
    """The answer holds an object that cannot be read, or that has more than one meaning."""


def read_object(text: str, key: str) -> tuple[dict[str, Any], bool] | None:
    """The only JSON object in an answer, with any text around it.

    Args:
        text: The answer, without thinking.
        key: The name that the object must have, if there are several objects.

    Returns:
        The object, and whether it was mended; None if the answer has no brace and is prose.

    Raises:
        BrokenJsonError: There is no readable object, or there are several that differ.
    """
    braceless = "{" not in text
    if braceless:
        if not _BRACELESS.search(text):
            return None
        text = "{" + text.strip(" \n`}") + "}"
    found = list(_objects(text, key))
    objects = [one for one in found if key in one[0]] or found
    if not objects or any(value != objects[0][0] for value, _ in objects):
        raise BrokenJsonError
    return objects[0][0], braceless or any(mended for _, mended in objects)


def _objects(text: str, key: str) -> list[tuple[dict[str, Any], bool]]:
    decoder = json.JSONDecoder(object_pairs_hook=_without_twins)
    found: list[tuple[dict[str, Any], bool]] = []
    start = text.find("{")
    tried = 0
    while start >= 0:
        tried += 1
        if tried > _MOST_BRACES:
            raise BrokenJsonError
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            region, end, closed = _region(text, start)
            begins = _BEGINS.match(text, start) is not None
            named = _NAMED.search(region) is not None
            mended = _mend(region, key, closed) if named else None
            if mended is not None:
                found.append((mended, True))
            elif begins and (named or not closed):
                # An object that it quotes may be readable, but it is not the answer.
                raise BrokenJsonError from None
            else:
                end = start + 1
        else:
            found.append((value, False))
        start = text.find("{", end)
    return found


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, one in pairs:
        if value.setdefault(name, one) != one:
            raise ValueError("the object has a name twice, with different values")
    return value


def _region(text: str, start: int) -> tuple[str, int, bool]:
    """An object that is not JSON: its text, its end, and whether its braces are closed."""
    depth = 0
    for brace in re.compile("[{}]").finditer(text, start, start + _LONGEST_MENDED):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : brace.end()], brace.end(), True
    return text[start:].rstrip(" \n\r\t`"), len(text), False


def _mend(region: str, key: str, closed: bool) -> dict[str, Any] | None:
    # Imported here, because only the extra `annotate` installs it.
    from json_repair import repair_json

    if len(region) > _LONGEST_MENDED:
        return None
    plain = _STRING_OR_COMMENT.sub(lambda match: match[1] or "", region)
    try:
        value = repair_json(plain, return_objects=True, skip_json_loads=True)
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or key not in value or not value.keys() <= _NAMES:
        return None
    whole = _EXPLANATION.search(plain)
    explanation = value.get("explanation")
    if whole is None or not isinstance(explanation, str) or _letters(text) != _letters(plain):
        return None
    (quoted,) = (_unescaped(group) for group in whole.groups() if group is not None)
    if quoted.split() != _unescaped(explanation).split():
        return None
    if not closed and not _WHOLE_END.search(plain):
        return None
    return {**value, "explanation": quoted}


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", _unescaped(text)).casefold()


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(
        lambda match: chr(int(match[1], 16)) if match[1] else _ESCAPED.get(match[2], match[0]), text
    )
