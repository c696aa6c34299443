"""All raters on all conversations: one rating a conversation and axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from regreason_plugin.annotate.aggregate import aggregate
from regreason_plugin.annotate.raters import Rater
from regreason_plugin.annotate.rules import RULE_RATERS, RULED_AXES
from regreason_plugin.core.paper import AXES
from regreason_plugin.core.records import Conversation, Rated, Rating


def collect(
    conversations: Iterable[Conversation],
    raters: Sequence[Rater] = RULE_RATERS,
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


def rate(
    conversations: Iterable[Conversation],
    raters: Sequence[Rater] = RULE_RATERS,
    axes: Sequence[str] = RULED_AXES,
) -> Iterator[Rating]:
    """Rate conversations as they come, by the mean of all scores; by default as the rules do.

    Yields:
        A rating a conversation and axis; none where no rater gave a score.
    """
    for rated in collect(conversations, raters, axes):
        verdict = aggregate(rated.ratings)
        if verdict is not None:
            yield Rating(**dict(rated), **verdict._asdict())
