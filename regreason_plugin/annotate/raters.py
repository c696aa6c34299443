"""The interface of all raters, rules and language models, and the loop that collects scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from regreason_plugin.core.paper import AXES
from regreason_plugin.core.records import Conversation, Rated, RaterScore


@dataclass(frozen=True)
class RatingPrompt:
    """A prompt for a score.

    Attributes:
        name: The prompt's name.
        scale: The highest score of its scale; the lowest is 1.
    """

    name: str
    scale: int


# The two scales of the paper, for rules. Rules read no text, so they get no prompts with examples.
PROMPTS = (RatingPrompt("scale-1-4", 4), RatingPrompt("scale-1-5", 5))


class Rater(Protocol):
    """Gives a score and an explanation.

    Rules compute them; for a language model they are read from the store.
    """

    @property
    def name(self) -> str:
        """The rater's name in all files."""

    @property
    def prompts(self) -> tuple[RatingPrompt, ...]:
        """The rater's prompts; each gives one score."""

    def rate(self, conversation: Conversation, axis: str, prompt: RatingPrompt) -> RaterScore:
        """Rate the last message on one axis; a failure gives an entry with ``error``."""


def collect(
    conversations: Iterable[Conversation],
    raters: Sequence[Rater],
    axes: Sequence[str] = tuple(AXES),
) -> Iterator[Rated]:
    """Collect the scores of all raters with all their prompts, conversation by conversation.

    Yields:
        One record per conversation and axis.
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
