"""Raters made of rules: the built-in default, for trials without a language model.

A rule rater counts the features that `rule_features` finds, adds its own bias and noise, and
explains its score by the counts. Rule raters fill the place of people or language models in a
trial; they are no substitute for their judgement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from regreason_plugin.annotate.aggregate import aggregate_rows
from regreason_plugin.annotate.raters import PROMPTS, Rater, RatingPrompt, collect
from regreason_plugin.annotate.rule_features import Reading, read
from regreason_plugin.annotate.scores import round_half_up
from regreason_plugin.core.paper import AXES
from regreason_plugin.core.records import Conversation, RaterScore, Rating

RULES_NOTE = (
    "Labels and explanations come from the built-in rules (raters named rules-*), which count "
    "words and sentences; no person and no language model has judged these conversations."
)

# The share of sentences on the topic at or below which the quality of a message is 0.
_ABOUT_SOMETHING_ELSE = 1 / 3
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class RuleRater:
    """A rater that counts features and adds a constant bias and random noise.

    Attributes:
        name: The rater's name; it starts with ``rules-`` so that nobody mistakes the rater for a
            person or a model.
        leaning: Bias added to every quality (0 to 1); negative for a strict rater.
        wavering: Standard deviation of the noise added to every quality.
        minor: Weight of a clumsy sentence, where a sentence with an error weighs 1.
    """

    name: str
    leaning: float
    wavering: float
    minor: float

    @property
    def prompts(self) -> tuple[RatingPrompt, ...]:
        """The two scales, without the prompts that have examples, which rules cannot read."""
        return PROMPTS

    def rate(self, conversation: Conversation, axis: str, prompt: RatingPrompt) -> RaterScore:
        """Score the last message; the same id, text and prompt always get the same score."""
        reading = read(tuple(conversation.conversation), conversation.context)
        quality, say = RULES[axis]
        drawn = hashlib.sha256(
            "\0".join((self.name, prompt.name, conversation.id, axis)).encode()
        ).digest()
        seen = quality(reading, self.minor) + self.leaning + self.wavering * _normal(drawn[:12])
        seen = min(1.0, max(0.0, seen))
        return RaterScore(
            rater=self.name,
            prompt=prompt.name,
            scale=prompt.scale,
            score=round_half_up(1 + (prompt.scale - 1) * seen),
            explanation=say(reading, drawn[12:]),
        )


RULE_RATERS: tuple[Rater, ...] = (
    RuleRater("rules-strict", leaning=-0.08, wavering=0.08, minor=1.0),
    RuleRater("rules-even", leaning=0.0, wavering=0.12, minor=0.5),
    RuleRater("rules-lenient", leaning=0.08, wavering=0.08, minor=0.25),
)


def _normal(drawn: bytes) -> float:
    """A nearly normal number with mean 0 and standard deviation 1, from twelve bytes."""
    # The twelve bytes give uniform numbers from 0 to 1, each with mean 1/2 and variance 1/12.
    return sum(drawn) / 255 - 6


def _naturalness(reading: Reading, minor: float) -> float:
    if not reading.sentences:
        return 0.0
    weights: dict[int, float] = {}
    for flaw in reading.flaws:
        weight = 1.0 if flaw.grave else minor
        weights[flaw.sentence] = max(weight, weights.get(flaw.sentence, 0.0))
    return 1 - sum(weights.values()) / reading.sentences


def _comprehensiveness(reading: Reading, _: float) -> float:
    if not reading.asked:
        return min(1.0, reading.sentences / 4)
    return len(reading.answered) / len(reading.asked)


def _on_topic(reading: Reading, _: float) -> float:
    if not reading.placed:
        return 0.5  # "Yes, of course." names no topic, neither the user's nor another
    share = reading.stayed / reading.placed
    return (share - _ABOUT_SOMETHING_ELSE) / (1 - _ABOUT_SOMETHING_ELSE)


def _say_naturalness(reading: Reading, drawn: bytes) -> str:
    flawed = len({flaw.sentence for flaw in reading.flaws})
    total = _sentences(reading.sentences)
    if not flawed:
        return _pick(
            drawn,
            f"Reads smoothly; no word is doubled, misplaced or stilted in its {total}.",
            f"Said as a fluent person would say it, without a slip in its {total}.",
            f"Nothing is garbled or stiff in its {total}; it flows as plain speech does.",
        )
    shown = _join(_first(drawn, [flaw.what for flaw in reading.flaws], 2), "and")
    return _pick(
        drawn,
        f"Reads badly in {_number(flawed)} of {total}, as the reader meets {shown}.",
        f"The wording slips in {_number(flawed)} of {total}: {shown}.",
        f"A fluent reader stumbles over {_number(flawed)} of {total}, as over {shown}.",
    )


def _say_comprehensiveness(reading: Reading, drawn: bytes) -> str:
    answered, asked = reading.answered, reading.asked
    missing = [thing for thing in asked if thing not in answered]
    if not asked:
        length = _sentences(reading.sentences)
        return f"Nothing definite was asked before it, and it says what it has to say in {length}."
    things = f"{_number(len(asked))} thing{'s' if len(asked) > 1 else ''} asked"
    if not missing:
        return _pick(
            drawn,
            f"Answers every one of the {things}: {_join(answered, 'and')}, and leaves out nothing.",
            f"Covers {_join(answered, 'and')}, so none of the {things} is left open.",
            f"Nothing is missing of the {things}: there is word on {_join(answered, 'and')}.",
        )
    if not answered:
        return _pick(
            drawn,
            f"Answers none of the {things}: there is nothing on {_join(missing, 'or')}.",
            f"Leaves all of the {things} open, with no word on {_join(missing, 'or')}.",
            f"Whoever asked learns nothing on {_join(missing, 'or')}; none of the {things} is met.",
        )
    return _pick(
        drawn,
        f"Answers {_number(len(answered))} of the {things}, {_join(answered, 'and')}; nothing on "
        f"{_join(missing, 'or')}.",
        f"Leaves out {_join(missing, 'and')}, but speaks of {_join(answered, 'and')}: "
        f"{_number(len(answered))} of the {things}.",
        f"Of the {things}, {_number(len(answered))} found an answer, {_join(answered, 'and')}; "
        f"{_join(missing, 'and')} did not.",
    )


def _say_on_topic(reading: Reading, drawn: bytes) -> str:
    stayed, total = reading.stayed, _sentences(reading.placed)
    topic, strays = reading.topic, _join(reading.strays[:2], "and")
    if not reading.placed:
        return f"Says too little to tell whether it is about {topic} or something else."
    if stayed == reading.placed:
        return _pick(
            drawn,
            f"Speaks of {topic} throughout and of nothing else, in all of its {total}.",
            f"Stays with {topic} from beginning to end; none of its {total} wanders off.",
            f"Keeps to what was asked about: {topic} is the matter in all of its {total}.",
        )
    if not stayed:
        return _pick(
            drawn,
            f"None of its {total} is about {topic}; it speaks of {strays} instead.",
            f"Loses {topic} altogether: it turns to {strays}, and none of its {total} comes back.",
        )
    return _pick(
        drawn,
        f"Stays with {topic} in {_number(stayed)} of {total}, but wanders off to {strays}.",
        f"Is about {topic} in only {_number(stayed)} of {total} and turns to {strays} in the rest.",
        f"Drifts from {topic} to {strays}, and keeps to the matter in {_number(stayed)} of "
        f"{total}.",
    )


# By axis: the function for a message's quality, from 0 to 1, and the one for the explanation.
RULES: dict[str, tuple[Callable[[Reading, float], float], Callable[[Reading, bytes], str]]] = {
    "naturalness": (_naturalness, _say_naturalness),
    "comprehensiveness": (_comprehensiveness, _say_comprehensiveness),
    "on_topic": (_on_topic, _say_on_topic),
}
RULED_AXES = tuple(axis for axis in AXES if axis in RULES)


def rate(
    conversations: Iterable[Conversation], axes: Sequence[str] = RULED_AXES
) -> Iterator[Rating]:
    """Rate conversations by the mean of all rule raters' scores, one conversation after another.

    Yields:
        One rating per conversation and axis.
    """
    return aggregate_rows(lambda: collect(conversations, RULE_RATERS, axes))


def _pick(drawn: bytes, *wordings: str) -> str:
    return wordings[drawn[0] % len(wordings)]


def _first(drawn: bytes, things: Sequence[str], count: int) -> list[str]:
    """At most ``count`` different things, in order from a randomly drawn start."""
    start = drawn[1] % len(things)
    return list(dict.fromkeys([*things[start:], *things[:start]]))[:count]


def _join(things: Sequence[str], last: str) -> str:
    if len(things) < 2:
        return "".join(things)
    return f"{', '.join(things[:-1])} {last} {things[-1]}"


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else "many"


def _sentences(count: int) -> str:
    return f"{_number(count)} sentence{'' if count == 1 else 's'}"
