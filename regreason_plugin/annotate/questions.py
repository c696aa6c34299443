"""The questions for a rater: one per call, grouped by conversation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.annotate.answers import Answer, read_explanation, read_rating
from regreason_plugin.annotate.calls import OK, Call, CallKey, Outcome, conversation_key
from regreason_plugin.annotate.prompts import AskingPrompt, scale_of
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.jsonl import check_unique, read_records
from regreason_plugin.core.paper import AXES, RATEABLE
from regreason_plugin.core.records import Conversation, RaterScore

# The explanation precedes the score, so that the model writes its reasons before it scores.
_EXPLANATION = {"type": "string"}


class Question(NamedTuple):
    """A call together with its prompt, its answer's schema and its answer's reader.

    Attributes:
        key: The call's key in the store.
        id: The conversation's id.
        prompt: Renders the whole prompt; a function, because prompts are long and most of them
            are not needed at the same time.
        schema: JSON schema of the answer.
        read: Reads the score and the explanation out of the answer's text.
    """

    key: CallKey
    id: str
    prompt: Callable[[], str]
    schema: dict[str, Any]
    read: Callable[[str], Answer]

    def call(self, worst: float) -> Call:
        """The call as the store records it; ``worst`` is the highest cost it can have."""
        return Call(self.key, self.id, worst)


def read_conversations(paths: Sequence[Path]) -> Iterator[Conversation]:
    """Stream the conversations of some files.

    Raises:
        UserError: A line is not a valid conversation, or two conversations have the same id.
    """
    seen: dict[tuple[str, str], int] = {}
    for path in paths:
        for number, conversation in enumerate(
            read_records(path, Conversation, unique=False, declaration=RATEABLE), start=1
        ):
            check_unique(seen, {"id": conversation.id}, path, number)
            yield conversation


def distinct(questions: Iterable[list[Question]]) -> Iterator[list[Question]]:
    """Drop the lists whose conversation text and axis came before, under whatever id."""
    seen = set()
    for some in questions:
        text_and_axis = some[0].key.conversation, some[0].key.axis
        if text_and_axis not in seen:
            seen.add(text_and_axis)
            yield some


@dataclass(eq=False)
class ModelRater:
    """A language model as a rater: makes its questions, and reads its answers from the store.

    Attributes:
        config: The rater's section of the config.
        asking: The rater's prompts, by style and axis.
        store: The store that holds the answers.
    """

    config: ServerRater
    asking: Mapping[tuple[str, str], AskingPrompt]
    store: Store

    def __post_init__(self) -> None:
        # Computed once here, because they are equal in all of perhaps half a million questions.
        self._sampling = sampling(self.config)
        self._hashes = {key: prompt.sha256 for key, prompt in self.asking.items()}
        self._last: Conversation | None = None
        self._outcomes: dict[tuple[str, str], Outcome] = {}

    @property
    def name(self) -> str:
        """The rater's name in the config."""
        return self.config.name

    @property
    def prompts(self) -> tuple[AskingPrompt, ...]:
        """One prompt per style; name and scale are the same for every axis."""
        return tuple(self.asking[style, next(iter(AXES))] for style in self.config.prompts)

    def kinds(self) -> set[tuple[str, ...]]:
        """The keys of this rater's calls without their first column, the conversation."""
        return {self._kind(style, axis) for style, axis in self._hashes}

    def questions(self, conversation: Conversation) -> list[Question]:
        """All questions for this rater about one conversation."""
        text = conversation_key(conversation)
        return [
            self._question(text, conversation, axis, style)
            for axis in AXES
            for style in self.config.prompts
        ]

    def makes(self, key: CallKey) -> bool:
        """Whether this rater makes a call with this key, about whatever conversation."""
        return key[1:] in self.kinds()

    def rate(self, conversation: Conversation, axis: str, prompt: Any) -> RaterScore:
        """The rater's answer from the store; an entry with ``error`` where there is none."""
        # The first call for a conversation reads its answers on all axes and prompts at once.
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

    def _kind(self, style: str, axis: str) -> tuple[str, str, str, str, str, str]:
        sha256 = self._hashes[style, axis]
        return self.name, axis, style, sha256, self.config.model, self._sampling

    def _question(self, text: str, conversation: Conversation, axis: str, style: str) -> Question:
        prompt = self.asking[style, axis]
        key = CallKey(text, *self._kind(style, axis))
        return Question(
            key,
            conversation.id,
            lambda: prompt.render(conversation),
            _rating_schema(prompt.scale),
            answer_reader(style),
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
        config: The rater to ask.
        conversation: The conversation to explain.
        axis: The axis to explain it on.
        kind: `prompts.MERGE` or `prompts.EXPLAIN`.
        prompt_sha256: Hash of everything in the prompt except the conversation.
        prompt: Renders the whole prompt.
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
    return Question(key, conversation.id, prompt, schema, answer_reader(kind))


def answer_reader(prompt: str) -> Callable[[str], Answer]:
    """The reader of the answers to a prompt, by the prompt's name in a call's key."""
    scale = scale_of(prompt)
    return read_explanation if scale is None else lambda answer: read_rating(answer, scale)


def sampling(config: ServerRater) -> str:
    """The settings that determine an answer besides the prompt, as JSON with sorted names."""
    return json.dumps({**config.request_options(), "structured": config.structured}, sort_keys=True)


def _rating_schema(scale: int) -> dict[str, Any]:
    # An enum, because the grammars of several servers do not support minimum and maximum.
    score = {"type": "integer", "enum": list(range(1, scale + 1))}
    return _schema({"explanation": _EXPLANATION, "score": score})


def _schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
