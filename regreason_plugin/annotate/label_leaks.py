r"""Label leaks: the places where an explanation names a label instead of giving a reason.

| kind | text that counts as a leak |
| --- | --- |
| score_phrase | ``4/5``, ``four out of five``, ``four stars``; ``rating``, ``rated``, ``score``, \
``scored`` and the like with a number (``rated it 4``, ``score of four``, ``Rating: **4**``); \
``a four`` where no noun follows (``a four.``, ``a four because``; not ``a four part answer``) |
| label_word | ``label``, ``labels``, ``labelled``, ``labeled``, ``labelling``, ``labeling`` |
| digit | a digit of 1 to 5 that stands alone: not in ``14``, ``4.5``, ``4th``, ``2024`` |
| label_text | for tasks with other labels than 1 to 5: the text of any label, as whole words, in \
any case |

The first three kinds apply to the labels 1 to 5, ``label_word`` and ``label_text`` to all others.
Numbers are 1 to 5, as digits (also ``4.5``) or as words. Every number counts, not only the row's
own label: a number close to the label gives it away too, and if only the row's own digit were
removed, a digit that stays would rule one label out. Harmless numbers (``names 3 causes``)
therefore count as well.

`without_leaks` removes every sentence that has a leak. A sentence ends with ``.``, ``!`` or ``?``
before white space, or at the end of a line. If no word is left, only the leaking words are removed
from the whole text; if that leaves no word either, the explanation is empty.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_WORDS = ("one", "two", "three", "four", "five")
_NUMBER = rf"(?:[1-5](?:\.\d+)?|{'|'.join(_WORDS)})"
# The number must not be part of a longer number or word; emphasis marks may surround it.
_BEFORE, _AFTER = r"(?<![\w.,/])", r"(?!\w)(?![.,/]\d)"
_BETWEEN = (
    r"(?:[\s:=*_\"'(]+(?:it|this|that|is|was|be|of|as|at|to|a|an|with|would|should|here|therefore"
    r"|the|response|answer|message|solid|only|just|about))*[\s:=*_\"'(]+"
)
_NO_NOUN = (
    r"(?=[*_\"')\]]*(?:$|[.,;:!?]|\s+(?:on|out|for|because|since|as|in|at|and|or|but|overall|rather"
    r"|given|here|instead|from|to|due|though|although|with)\b))"
)
_SCORE_PHRASE = "|".join(
    (
        rf"{_BEFORE}[1-5](?:\.\d+)?\s?/\s?(?:4|5|10){_AFTER}",
        rf"\b{_NUMBER}\s+out\s+of\s+(?:{_NUMBER}|10|ten)(?!\w)",
        rf"\b{_NUMBER}[\s-]stars?\b",
        rf"\b(?:rat(?:e[sd]?|ings?)|scor(?:e[sd]?|ing)){_BETWEEN}{_NUMBER}{_AFTER}",
        rf"\ba\s+[*_\"']*{_NUMBER}{_AFTER}{_NO_NOUN}",
    )
)
_SCORE_LEAKS = re.compile(
    rf"(?P<score_phrase>{_SCORE_PHRASE})"
    r"|(?P<label_word>\blabel(?:s|l?ed|l?ing)?\b)"
    rf"|(?P<digit>{_BEFORE}[1-5]{_AFTER})",
    re.IGNORECASE,
)
_DIGIT_LABELS = ("1", "2", "3", "4", "5")
KINDS = ("digit", "label_word", "score_phrase")
OTHER_KINDS = ("label_text", "label_word")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]*_]*\s+|\s*\n\s*")
_DIGITS = {word: str(number) for number, word in enumerate(_WORDS, start=1)}
_NAMED = re.compile(rf"\b(?:[1-5]|{'|'.join(_WORDS)})\b", re.IGNORECASE)


class Leak(NamedTuple):
    """A place that names a label: the kind of leak, and the words found there."""

    kind: str
    words: str


def kinds_of(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of leaks that are searched for in a task with these labels."""
    return KINDS if labels == _DIGIT_LABELS else OTHER_KINDS


@lru_cache(maxsize=8)
def _leak(labels: tuple[str, ...]) -> re.Pattern[str]:
    if labels == _DIGIT_LABELS:
        return _SCORE_LEAKS
    # The longest first: if one label is a prefix of another, the longer one must match.
    texts = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.compile(
        rf"(?P<label_text>(?<!\w)(?:{texts})(?!\w))|(?P<label_word>\blabel(?:s|l?ed|l?ing)?\b)",
        re.IGNORECASE,
    )


def find_leaks(text: str, labels: tuple[str, ...] = _DIGIT_LABELS) -> list[Leak]:
    """All places that name a label, from left to right, without overlaps."""
    return [Leak(match.lastgroup or "", match.group()) for match in _leak(labels).finditer(text)]


def names_label(leaks: list[Leak], label: int, labels: tuple[str, ...] = _DIGIT_LABELS) -> bool:
    """Return whether any of the leaks names this label, where labels are numbered from 1."""
    if labels != _DIGIT_LABELS:
        named = labels[label - 1].casefold()
        return any(leak.words.casefold() == named for leak in leaks)
    return any(
        _DIGITS.get(number.lower(), number) == str(label)
        for leak in leaks
        for number in _NAMED.findall(leak.words)
    )


def without_leaks(text: str, labels: tuple[str, ...] = _DIGIT_LABELS) -> str:
    """The text with its label leaks removed; empty if no word is left.

    A text without leaks is returned unchanged. A second call changes nothing.
    """
    leak = _leak(labels)
    if not leak.search(text):
        return text
    kept = " ".join(sentence for sentence in _sentences(text) if not leak.search(sentence))
    if leak.search(kept) or not _has_word(kept):
        kept = text
        while leak.search(kept):  # a removal can join two halves into a new leak
            kept = " ".join(leak.sub(" ", kept).split())
    return kept if _has_word(kept) else ""


def _sentences(text: str) -> list[str]:
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        sentences.append(text[start : end.end()].strip())
        start = end.end()
    return [sentence for sentence in [*sentences, text[start:].strip()] if sentence]


def _has_word(text: str) -> bool:
    return any(character.isalpha() for character in text)
