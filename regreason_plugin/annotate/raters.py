"""What every rater offers, whether rules or a language model give the scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from regreason_plugin.core.paper import AXES
from regreason_plugin.core.records import Conversation, Rated, RaterScore


@dataclass(frozen=True)
class RatingPrompt:
    """A way of asking for a score: its name, and the scale it asks for, from 1."""

    name: str
    scale: int


# The two scales of the paper. Prompts with examples are for raters that read prompts.
PROMPTS = (RatingPrompt("scale-1-4", 4), RatingPrompt("scale-1-5", 5))


class Rater(Protocol):
    """Gives a score and says why: rules at once, a language model out of the store."""

    @property
    def name(self) -> str:
        """Who rates; stands in every file beside the score."""

    @property
    def prompts(self) -> tuple[RatingPrompt, ...]:
        """What it is asked with, one score each."""

    def rate(self, conversation: Conversation, axis: str, prompt: RatingPrompt) -> RaterScore:
        """Rate the last message on one axis; a failure is an entry with ``error``."""


def collect(
    conversations: Iterable[Conversation],
    raters: Sequence[Rater],
    axes: Sequence[str] = tuple(AXES),
) -> Iterator[Rated]:
    """What every rater says of conversations as they come, with each of its prompts.

    Yields:
        One record a conversation and axis.
    """
    for conversation in conversations:
        fields = dict(conversation)
        for axis in axes:
            scores = [
                rater.rate(conversation, axis, prompt)
                for rater in raters
                for prompt in rater.prompts
            ]
            yield Rated(**fields, axis=axis, ratings=scores)
