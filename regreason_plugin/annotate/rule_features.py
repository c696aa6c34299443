"""The features of a message that rules can see: flaws, answers and strays, by sentence.

A stray is a word from a sentence that is about something else than the user asked. The features
do not depend on how the mini benchmark is generated; the rules read any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from regreason_plugin.core.records import Turn

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n\s*")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
# A list such as "price, size and colour", in which people ask for several things at once.
# Repetitions are bounded, so that a message made of commas is read in linear time.
_LISTED = re.compile(r"\b\w{1,40}(?:, \w{1,40}){1,9},? (?:and|or) \w{1,40}\b")
_LIST_SEPARATOR = re.compile(r",? (?:and|or) |, ")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SMALL_WORDS = _set(
    "a about after again all also am an and any are as ask at be because been before but by "
    "can cannot come could course did do does doing done else ever far few for from get give go "
    "good had has have he her here hers him his how i if in into is it its just know last let like "
    "made make many may maybe me mean might mine more most much must my need never no not now "
    "of off oh ok okay on once one only onto or other our out over own please put quite "
    "really right said same say see shall she should since so some such sure take tell than "
    "thank thanks that the their them then there these they thing things think this those to "
    "too try under until up us use very want was way we well were what when where which while "
    "who whom whose why will with would yes yet you your yours"
)
_BACK_REFERENCES = _set("it its they their them he his she her this that these those")
_MAY_BE_DOUBLED = _set("that had very so no ha bye really many long")
_ARTICLES = frozenset(("a", "an", "the"))
_BEFORE_NOUN = _ARTICLES | {"my", "your", "his", "her", "its", "our", "their"}
_NEVER_AFTER_ARTICLE = _set(
    "a an the is was are were has have had and or of in on at to for with from by it that"
)
_STILTED = _set(
    "abovementioned aforementioned aforesaid forthwith henceforth hereby herein hereof "
    "heretofore herewith hitherto notwithstanding pursuant selfsame thereby therein thereof "
    "thereto whereby wherein whereupon whomsoever utilise utilize utilizing"
)
_STOCK = re.compile(
    r"\b(?:i'm (?:just|only|sorry|not sure|happy to|glad)|i(?:'d| would) (?:be happy|love|suggest)|"
    r"as an ai|feel free|is there anything else|i hope (?:this|that)|great question)\b",
    re.IGNORECASE,
)
_LONG_SENTENCE = 20
_SAID_TWICE = 5
_MOST_ASKED = 4
_QUOTED_LENGTH = 24


class Flaw(NamedTuple):
    """Something in a message that a fluent person would not have written.

    Attributes:
        sentence: Index of the sentence, from 0.
        what: Description of the flaw, with the words in which it was found.
        grave: Whether the flaw is an error, not just clumsy.
    """

    sentence: int
    what: str
    grave: bool


class Reading(NamedTuple):
    """The features of a rated message.

    Attributes:
        sentences: Number of sentences.
        flaws: The flaws of its language.
        asked: The things that the user asked about, one word each.
        answered: The things in `asked` that the message mentions.
        placed: Number of sentences with at least one content word.
        stayed: Number of these sentences that are on the topic, or refer back to one that is.
        topic: The content word of the user's requests or the context that occurs in most
            sentences; their first content word if none of them occurs.
        strays: One word from each sentence in `placed` that is off the topic, without repetitions.
    """

    sentences: int
    flaws: tuple[Flaw, ...]
    asked: tuple[str, ...]
    answered: tuple[str, ...]
    placed: int
    stayed: int
    topic: str
    strays: tuple[str, ...]


@lru_cache(maxsize=16)  # all raters read the same message one after the other
def read(turns: tuple[Turn, ...], context: str | None) -> Reading:
    """Read the features of a conversation's last message, given the turns before it."""
    message = turns[-1].content
    sentences = [text for text in _SENTENCE_END.split(message.strip()) if _WORD.search(text)]
    words = [_words(sentence) for sentence in sentences]
    requests = [turn.content for turn in turns[:-1] if turn.role == "user"]
    stems = {_stem(word) for sentence in words for word in sentence}
    asked = _asked(requests)
    placed, stayed, topic, strays = _whereabouts(words, [context or "", *requests])
    return Reading(
        sentences=len(sentences),
        flaws=tuple(_flaws(sentences, words)),
        asked=asked,
        answered=tuple(word for word in asked if _stem(word) in stems),
        placed=placed,
        stayed=stayed,
        topic=topic,
        strays=strays,
    )


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text.replace("\u2019", "'"))]


def _stem(word: str) -> str:
    """A word without its most common endings, so that "sizes" matches "size"."""
    word = word.removesuffix("'s")
    for ending in ("ing", "ed", "es", "s", "e"):
        if len(word) - len(ending) >= 3 and word.endswith(ending):
            return word.removesuffix(ending)
    return word


def _content(words: Iterable[str]) -> list[str]:
    return [
        word
        for word in words
        if len(word) > 2
        and word not in _STILTED
        and word.split("'")[0] not in _SMALL_WORDS
        and not word.endswith("n't")
    ]


def _asked(requests: Sequence[str]) -> tuple[str, ...]:
    """The things asked about: a list in the last request, or else its content words.

    If the last request has neither, earlier requests are searched, the latest first.
    """
    for request in reversed(requests):
        listed = _LISTED.search(request)
        things = (
            [word.lower() for word in _LIST_SEPARATOR.split(listed.group())]
            if listed
            else _content(_words(request))
        )
        if things:
            return tuple(dict.fromkeys(thing[:_QUOTED_LENGTH] for thing in things))[:_MOST_ASKED]
    return ()


def _whereabouts(
    sentences: Sequence[Sequence[str]], asked_about: Sequence[str]
) -> tuple[int, int, str, tuple[str, ...]]:
    """Sort sentences into those on the topic and those off it.

    Returns:
        `Reading.placed`, `Reading.stayed`, `Reading.topic` and `Reading.strays`.
    """
    about = {_stem(word): word for text in asked_about for word in _content(_words(text))}
    shared: dict[str, int] = {}
    strays: list[str] = []
    placed = stayed = 0
    on_topic = False
    for words in sentences:
        content = _content(words)
        if not content:
            continue
        common = {stem for stem in map(_stem, content) if stem in about}
        # "It has four legs." is on the topic if the sentence before it is.
        on_topic = bool(common) or (on_topic and words[0] in _BACK_REFERENCES)
        placed += 1
        stayed += on_topic
        for stem in sorted(common):
            shared[stem] = shared.get(stem, 0) + 1
        if not on_topic:
            strays.append(_subject(words, content)[:_QUOTED_LENGTH])
    # Of equally frequent words, the one that occurs first wins, as dicts keep their order.
    topic = (
        about[max(shared, key=lambda stem: shared[stem])]
        if shared
        else next(iter(about.values()), "the request")
    )
    return placed, stayed, topic[:_QUOTED_LENGTH], tuple(dict.fromkeys(strays))


def _subject(words: Sequence[str], content: Sequence[str]) -> str:
    """The subject of a sentence: its first noun after an article, or else its longest word."""
    for first, second in pairwise(words):
        if first in _BEFORE_NOUN and second in content:
            return second
    return max(content, key=len)


def _flaws(sentences: Sequence[str], words: Sequence[Sequence[str]]) -> Iterable[Flaw]:
    earlier_runs: set[tuple[str, ...]] = set()
    for number, (sentence, its_words) in enumerate(zip(sentences, words, strict=True)):
        for first, second in pairwise(its_words):
            pair = f"'{first[:_QUOTED_LENGTH]} {second[:_QUOTED_LENGTH]}'"
            if first == second and first not in _MAY_BE_DOUBLED:
                yield Flaw(number, f"the doubled word in {pair}", grave=True)
            elif first in _ARTICLES and second in _NEVER_AFTER_ARTICLE:
                yield Flaw(number, f"the misplaced article in {pair}", grave=True)
        if its_words[-1] in _ARTICLES:
            yield Flaw(number, f"the article '{its_words[-1]}' at the end", grave=True)
        for word in its_words:
            if word in _STILTED:
                yield Flaw(number, f"the stilted word '{word}'", grave=True)
        if len(its_words) > _LONG_SENTENCE:
            yield Flaw(number, "a sentence that is too long", grave=False)
        if sentence[0].islower():
            yield Flaw(
                number, f"the small letter of '{its_words[0][:_QUOTED_LENGTH]}'", grave=False
            )
        if _STOCK.search(sentence.replace("\u2019", "'")):
            yield Flaw(number, "a stock phrase", grave=False)
        runs = {
            tuple(its_words[start : start + _SAID_TWICE])
            for start in range(len(its_words) - _SAID_TWICE + 1)
        }
        if runs & earlier_runs:
            yield Flaw(number, "a phrase said twice", grave=False)
        earlier_runs |= runs
    if sentences and sentences[-1][-1].isalnum():
        yield Flaw(len(sentences) - 1, "a last sentence without its end", grave=False)
