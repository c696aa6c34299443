"""All raters on all conversations: one rating a conversation and axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from regreason_plugin.annotation.aggregate import aggregate
from regreason_plugin.annotation.raters import PROMPTS, Rater, RatingPrompt
from regreason_plugin.annotation.rules import RULE_RATERS
from regreason_plugin.schema import Conversation, Rating
from regreason_plugin.settings import AXES


def rate(
    conversations: Iterable[Conversation],
    raters: Sequence[Rater] = RULE_RATERS,
    prompts: Sequence[RatingPrompt] = PROMPTS,
) -> Iterator[Rating]:
    """Rate conversations as they come, every axis by every rater with every prompt.

    Yields:
        A rating a conversation and axis; none where no rater gave a score.
    """
    for conversation in conversations:
        fields = dict(conversation)
        for axis in AXES:
            scores = [
                rater.rate(conversation, axis, prompt) for rater in raters for prompt in prompts
            ]
            verdict = aggregate(scores)
            if verdict is not None:
                yield Rating(**fields, axis=axis, **verdict._asdict(), ratings=scores)
