"""The built-in mini benchmark: generated conversations whose qualities are set by construction.

For each conversation three degrees from 1 to 5 are drawn independently, one per axis. Each of them
sets one property of the response:

    garbled    the number of garbled or stilted sentences
    answered   the number of answers to the four things that the user asks about
    strayed    the number of sentences about something else

``mini.yml`` says which axis sets which property, and has the words of each dataset. The number of
sentences is always the same, so no degree shows in the length. The degrees are kept in ``meta``
for studies of the raters, who read only the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from random import Random
from typing import Any

import yaml

from regreason_plugin.core.paper import AXES, DATASETS
from regreason_plugin.core.records import Conversation, Turn
from regreason_plugin.data.groups import (
    conversation_id,
    first_user_turn_group,
    text_group,
)

_TEXT: dict[str, Any] = yaml.safe_load(
    files("regreason_plugin.data").joinpath("mini.yml").read_text(encoding="utf-8")
)

# The relative frequencies of the degrees 1 to 5, by profile.
_SHARES = {
    "low": (18, 29, 24, 16, 13),
    "middle": (15, 20, 29, 21, 15),
    "high": (13, 16, 24, 29, 18),
}
# The declared axes and settings that the benchmark covers, and the property that each axis sets.
MINI_AXES: dict[str, str] = {axis: _TEXT["axes"][axis] for axis in AXES if axis in _TEXT["axes"]}
MINI_SETTINGS = tuple(
    (dataset, axis) for dataset in DATASETS if dataset in _TEXT["datasets"] for axis in MINI_AXES
)

_ASKED = 4
_OTHER_SENTENCES = 4
# The possible numbers of garbled sentences, out of six, for each degree.
_GARBLED = {1: (6,), 2: (4, 5), 3: (3,), 4: (1, 2), 5: (0,)}

# An article, a noun and a word that makes the misplaced article visible: "lamp the is".
_BEFORE_SMALL_WORD = re.compile(
    r"\b(the|a) (\w+)(?= (?:is|was|has|with|and|of|for|in)\b|\.)", re.IGNORECASE
)
_ARTICLE = re.compile(r"\b(?:the|a)\b", re.IGNORECASE)


def mini_conversations(seed: int = 0, per_dataset: int = 1000) -> Iterator[Conversation]:
    """Generate the benchmark. The same seed gives the same bytes on every machine.

    Args:
        seed: The seed; another one gives other conversations from the same words.
        per_dataset: The number of conversations per dataset. Those of ``hh_chosen`` and
            ``hh_rejected`` answer the same requests.

    Yields:
        The conversations, dataset by dataset, with unique ids.
    """
    seen: set[str] = set()
    for dataset in dict(MINI_SETTINGS):
        for number in range(per_dataset):
            conversation = _conversation(dataset, number, seed, attempt=0)
            attempt = 0
            while conversation.id in seen:  # the id depends on the content, which may repeat
                attempt += 1
                conversation = _conversation(dataset, number, seed, attempt)
            seen.add(conversation.id)
            yield conversation


def _conversation(dataset: str, number: int, seed: int, attempt: int) -> Conversation:
    material = _TEXT["datasets"][dataset]
    family = material.get("family", dataset)
    asking = Random(f"{seed}/{family}/{number}/request")
    scene = asking
    if "per_scene" in material:
        scene = Random(f"{seed}/{family}/{number // material['per_scene']}/story")
    words = _scene(material, scene)
    asked = asking.sample(material["facets"], _ASKED)
    words["facets"] = ", ".join(asked[:-1]) + f" and {asked[-1]}"
    context = material["context"].format(**words) if "context" in material else None
    before = [text.format(**words) for text in asking.choice(material["turns"])]

    answering = Random(f"{seed}/{dataset}/{number}/response/{attempt}")
    degrees = {
        axis: answering.choices((1, 2, 3, 4, 5), _SHARES[profile])[0]
        for axis, profile in material["profile"].items()
    }
    shown = {way: degrees[axis] for axis, way in _TEXT["axes"].items()}
    response, made_of = _response(material, words["topic"], asked, shown, answering)
    roles = ("user", "assistant")
    turns = [
        Turn.model_validate({"role": roles[place % 2], "content": text})
        for place, text in enumerate([*before, response])
    ]
    meta: dict[str, Any] = {
        "origin": "generated",
        "degrees": degrees,
        "topic": words["topic"],
        "asked": asked,
        **made_of,
    }
    if "per_film" in material:
        meta["film"] = f"film {seed}-{number // material['per_film']}"
        group = text_group(meta["film"])
    elif context is not None:
        group = text_group(context)
    else:
        group = first_user_turn_group(turns)
    return Conversation(
        id=conversation_id(dataset, turns, context),
        dataset=dataset,
        group=group,
        conversation=turns,
        context=context,
        meta=meta,
    )


def _scene(material: Mapping[str, Any], random: Random) -> dict[str, str]:
    name, friend = random.sample(_TEXT["names"], 2)
    return {
        "topic": random.choice(material["topics"]),
        "name": name,
        "friend": friend,
        "place": random.choice(_TEXT["places"]),
        "brand": random.choice(material.get("brands", [""])),
    }


def _response(
    material: Mapping[str, Any],
    topic: str,
    asked: list[str],
    degrees: Mapping[str, int],
    random: Random,
) -> tuple[str, dict[str, Any]]:
    given = random.sample(asked, degrees["answered"] - 1)
    answers = _answers(material, topic, asked, given, random)
    strayed = 5 - degrees["strayed"]
    others = [other for other in material["topics"] if other != topic]
    subjects = [topic] * (_OTHER_SENTENCES - strayed)
    # Some strayed sentences have another conversation's topic, so that no word list detects them.
    subjects += [
        random.choice(others if random.random() < 0.3 else _TEXT["elsewhere"])
        for _ in range(strayed)
    ]
    patterns = random.sample(_TEXT["sentences"], _OTHER_SENTENCES)
    sentences = answers + [
        pattern.format(topic=subject) for pattern, subject in zip(patterns, subjects, strict=True)
    ]
    random.shuffle(sentences)
    garbled = random.choice(_GARBLED[degrees["garbled"]])
    for place in random.sample(range(len(sentences)), garbled):
        sentences[place] = garble(sentences[place], random)
    if random.random() < 0.5:
        first = sentences[0]
        if not first.startswith("I "):
            first = first[0].lower() + first[1:]
        sentences[0] = f"{random.choice(_TEXT['openers'])} {first}"
    if random.random() < 0.5:
        sentences.append(random.choice(_TEXT["closers"]))
    made_of = {
        "answered": given,
        "strayed": [subject for subject in subjects if subject != topic],
        "garbled": garbled,
    }
    return " ".join(sentences), made_of


def _answers(
    material: Mapping[str, Any], topic: str, asked: list[str], given: list[str], random: Random
) -> list[str]:
    """Two sentences that name four things: ``given``, and things that answer nothing."""
    unasked = [facet for facet in material["facets"] if facet not in asked]
    things = given + [
        random.choice(unasked if random.random() < 0.25 else _TEXT["vague"])
        for _ in range(_ASKED - len(given))
    ]
    random.shuffle(things)
    told = [f"{random.choice(_TEXT['adjectives'])} {thing}" for thing in things]
    patterns = random.sample(_TEXT["answers"], 2)
    return [
        pattern.format(topic=topic, one=one, two=two)
        for pattern, one, two in zip(patterns, told[::2], told[1::2], strict=True)
    ]


def garble(sentence: str, random: Random) -> str:
    """Put one fault into a sentence: a doubled, misplaced or stilted word."""
    way = random.choice(("doubled", "misplaced", "stilted"))
    if way == "doubled":
        words = sentence.split()
        place = random.randrange(len(words) - 1)  # not the last, which has the full stop
        words.insert(place + 1, words[place].lower())
        garbled = " ".join(words)
    elif way == "misplaced":
        garbled = _BEFORE_SMALL_WORD.sub(_behind, sentence, count=1)
    else:
        garbled = _ARTICLE.sub(random.choice(_TEXT["stilted"]), sentence, count=1)
    return garbled[0].upper() + garbled[1:]


def _behind(match: re.Match[str]) -> str:
    article, noun = match.groups()
    return f"{noun} {article.lower()}"
