"""A call, its key and its outcome: the records of the store of calls."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple

from regreason_plugin.core.records import Conversation

OK = "ok"
ASKING = "asking"


class CallKey(NamedTuple):
    """Everything that determines an answer: the columns of the primary key."""

    conversation: str
    rater: str
    axis: str
    prompt: str
    prompt_sha256: str
    model: str
    sampling: str


# All columns of a key except the conversation, then the state.
FinishedCall = tuple[str, str, str, str, str, str, str]


class Call(NamedTuple):
    """A call that can be claimed.

    Attributes:
        key: The call's key.
        id: The conversation's id.
        worst: The highest possible cost, in the prices' currency.
    """

    key: CallKey
    id: str
    worst: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The result of a finished call.

    Attributes:
        state: ``ok``, or the name of a fault.
        score: The score, on the prompt's scale; None if the call failed or asked for none.
        explanation: The explanation; None if the call failed.
        answer: The server's text if it could not be used or was mended; None otherwise.
        attempts: Number of attempts.
        prompt_tokens: Prompt tokens of all attempts.
        answer_tokens: Answer tokens of all attempts.
        cost: Cost of all attempts, in the prices' currency.
        served: The model's name in the server's reply; None if there was no reply or no name.
    """

    state: str
    score: int | None = None
    explanation: str | None = None
    answer: str | None = None
    attempts: int = 1
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    served: str | None = None


class Batch(NamedTuple):
    """Calls that are sent to a server together; the store keeps their claim for the batch.

    Attributes:
        name: The batch's name: the worker of its calls.
        rater: The rater's name.
        file: The server's id of the uploaded requests; None before the upload has ended.
        id: The server's id of the batch; None before the server has confirmed the batch.
        sent: When the server was asked to make the batch, in seconds since 1970; None before that.
        calls: Number of calls whose answers are not stored yet.
    """

    name: str
    rater: str
    file: str | None
    id: str | None
    sent: float | None
    calls: int


class Claimed(NamedTuple):
    """The result of an attempt to claim calls.

    Attributes:
        mine: The calls that this process has claimed and now has to make.
        elsewhere: Number of calls that other processes have claimed.
        unaffordable: Number of calls that the budget does not allow.
    """

    mine: list[Call]
    elsewhere: int
    unaffordable: int


def conversation_key(conversation: Conversation) -> str:
    """Hash of a conversation's turns and context, without its id; 32 hexadecimal digits."""
    turns = [[turn.role, turn.content] for turn in conversation.conversation]
    text = json.dumps([conversation.context, turns])
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def key_hash(key: CallKey) -> str:
    """Hash of a call's key; 32 hexadecimal digits."""
    return hashlib.sha256("\0".join(key).encode("utf-8")).hexdigest()[:32]
