"""What there is to ask: every call of a rater, conversation by conversation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.annotate.answers import read_explanation, read_rating
from regreason_plugin.annotate.config import ServerRater
from regreason_plugin.annotate.prompts import AskingPrompt
from regreason_plugin.annotate.store import OK, Call, CallKey, Outcome, Store, conversation_key
from regreason_plugin.core.jsonl import check_unique, read_records
from regreason_plugin.core.paper import AXES, RATEABLE
from regreason_plugin.core.records import Conversation, RaterScore

# The explanation comes first: the score then follows from it.
_EXPLANATION = {"type": "string"}


class Question(NamedTuple):
    """A call with what it takes to make it.

    Attributes:
        prompt: Makes the whole text; long, so only when it is needed.
        schema: JSON schema of the answer.
        read: Turns the answer's text into a score, if one was asked for, and an explanation.
    """

    key: CallKey
    id: str
    prompt: Callable[[], str]
    schema: dict[str, Any]
    read: Callable[[str], tuple[int | None, str]]

    def call(self, worst: float) -> Call:
        """As the store has it, with the most it can cost."""
        return Call(self.key, self.id, worst)


def read_conversations(paths: Sequence[Path]) -> Iterator[Conversation]:
    """Stream the conversations of some files.

    Raises:
        UserError: One is wrong, or an id stands in two places.
    """
    seen: dict[tuple[str, str], int] = {}
    for path in paths:
        for number, conversation in enumerate(
            read_records(path, Conversation, unique=False, declaration=RATEABLE), start=1
        ):
            check_unique(seen, {"id": conversation.id}, path, number)
            yield conversation


def distinct(questions: Iterable[list[Question]]) -> Iterator[list[Question]]:
    """Leave out what stands there twice: a conversation's text decides, whatever its id."""
    seen = set()
    for some in questions:
        mark = some[0].key.conversation, some[0].key.axis
        if mark not in seen:
            seen.add(mark)
            yield some


@dataclass(eq=False)
class AskedRater:
    """A language model as a rater: its questions, and its answers out of the store.

    Attributes:
        config: Its part of the config.
        asking: Its prompts, by style and axis.
        store: Where the answers are.
    """

    config: ServerRater
    asking: Mapping[tuple[str, str], AskingPrompt]
    store: Store

    def __post_init__(self) -> None:
        # The same for half a million questions.
        self._sampling = sampling(self.config)
        self._hashes = {key: prompt.sha256 for key, prompt in self.asking.items()}
        self._last: Conversation | None = None
        self._outcomes: dict[tuple[str, str], Outcome] = {}

    @property
    def name(self) -> str:
        """As in the config."""
        return self.config.name

    @property
    def prompts(self) -> tuple[AskingPrompt, ...]:
        """One a style; which axis's does not matter for its name and scale."""
        return tuple(self.asking[style, next(iter(AXES))] for style in self.config.prompts)

    def kinds(self) -> set[tuple[str, ...]]:
        """The keys of what it is asked about any conversation, without the conversation."""
        return {
            (self.name, axis, style, sha256, self.config.model, self._sampling)
            for (style, axis), sha256 in self._hashes.items()
        }

    def questions(self, conversation: Conversation) -> list[Question]:
        """All it is asked about one conversation."""
        text = conversation_key(conversation)
        return [
            self._question(text, conversation, axis, style)
            for axis in AXES
            for style in self.config.prompts
        ]

    def rate(self, conversation: Conversation, axis: str, prompt: Any) -> RaterScore:
        """What it has answered, out of the store."""
        # All it has said of a conversation is read at once, for the axes and prompts to come.
        if self._last is not conversation:
            keys = [question.key for question in self.questions(conversation)]
            outcomes = self.store.outcomes(keys).items()
            self._outcomes = {(key.axis, key.prompt): outcome for key, outcome in outcomes}
            self._last = conversation
        outcome = self._outcomes.get((axis, prompt.name), Outcome("not_asked"))
        answered = outcome.state == OK
        return RaterScore(
            rater=self.name,
            prompt=prompt.name,
            scale=prompt.scale,
            score=outcome.score if answered else None,
            explanation=outcome.explanation if answered else None,
            error=None if answered else outcome.state,
        )

    def _question(self, text: str, conversation: Conversation, axis: str, style: str) -> Question:
        prompt = self.asking[style, axis]
        sha256 = self._hashes[style, axis]
        key = CallKey(text, self.name, axis, style, sha256, self.config.model, self._sampling)
        return Question(
            key,
            conversation.id,
            lambda: prompt.render(conversation),
            _rating_schema(prompt.scale),
            lambda answer: read_rating(answer, prompt.scale),
        )


def explanation_question(
    config: ServerRater,
    conversation: Conversation,
    axis: str,
    kind: str,
    prompt_sha256: str,
    prompt: Callable[[], str],
) -> Question:
    """A call whose answer is an explanation without a score.

    Args:
        config: Who is asked.
        conversation: What is explained.
        axis: On which axis.
        kind: `prompts.MERGE` or `prompts.EXPLAIN`.
        prompt_sha256: What the prompt says beside the conversation.
        prompt: Makes the whole text.
    """
    key = CallKey(
        conversation_key(conversation),
        config.name,
        axis,
        kind,
        prompt_sha256,
        config.model,
        sampling(config),
    )
    schema = _schema({"explanation": _EXPLANATION})
    return Question(
        key, conversation.id, prompt, schema, lambda answer: (None, read_explanation(answer))
    )


def sampling(config: ServerRater) -> str:
    """What decides an answer beside the prompt, as a key: JSON with sorted names."""
    return json.dumps({**config.request_options(), "structured": config.structured}, sort_keys=True)


def _rating_schema(scale: int) -> dict[str, Any]:
    # An enum: several servers' grammars know no minimum and maximum.
    score = {"type": "integer", "enum": list(range(1, scale + 1))}
    return _schema({"explanation": _EXPLANATION, "score": score})


def _schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
