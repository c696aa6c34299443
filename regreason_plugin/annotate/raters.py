"""What every rater offers, whether rules or a language model give the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from regreason_plugin.core.records import Conversation, RaterScore


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
