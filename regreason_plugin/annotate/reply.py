"""A server's reply: the answer in the body of a response, and what stands beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from regreason_plugin.annotate.answers import Answer, Unreadable
from regreason_plugin.annotate.calls import OK, Outcome
from regreason_plugin.annotate.faults import TransientFault, server_words
from regreason_plugin.annotate.server_rater import TOOL, Price

# A larger token count is a server's error, and would not fit into the store.
_MOST_TOKENS = 2**40
# Types of the parts of a message that hold the answer; others hold thinking, images, or sound.
_ANSWERING = {"text", "output_text"}
# Characters of a model's name that are kept.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Reply:
    """A server's reply.

    Attributes:
        text: The content of the message, or the arguments of the tool `answer`.
        prompt_tokens: Number of prompt tokens, as the server counts them.
        answer_tokens: Number of answer tokens, as the server counts them.
        stop: The reason why there is no whole answer: ``truncated``, ``refused`` or
            ``only_thinking``; None for a complete answer.
        served: The model's name, as the server gives it; None if it gives none.
    """

    text: str
    prompt_tokens: int
    answer_tokens: int
    stop: str | None
    served: str | None = None


def read_reply(content_type: str, body: bytes) -> Reply:
    """Read the reply out of a response's body.

    Raises:
        Fault: The body is no chat completion.
    """
    if "json" not in content_type.lower():
        raise TransientFault("wrong_content_type", server_words(body))
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):
        raise TransientFault("broken_body", server_words(body)) from None
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        text = _arguments(message.get("tool_calls")) or _text(message.get("content"))
        refusal = message.get("refusal")
        thinking = message.get("reasoning_content") or message.get("reasoning")
        usage = completion.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        if not all(0 <= number < _MOST_TOKENS for number in tokens):
            raise ValueError
        reason, served = choice.get("finish_reason"), completion.get("model")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
        raise TransientFault("no_completion", server_words(body)) from None
    stop = stop_of(reason)
    if refusal or stop == "refused":
        stop, text = "refused", str(refusal or text)
    elif stop is None and thinking and not text.strip():
        stop = "only_thinking"
    served = served[:_LONGEST_NAME] if isinstance(served, str) and served else None
    return Reply(text, *tokens, stop, served)


def outcome_of(reply: Reply, read: Callable[[str], Answer], price: Price | None = None) -> Outcome:
    """The outcome of a reply.

    Args:
        reply: The reply.
        read: Reads the text of a whole answer.
        price: The price of its tokens; None if unknown.
    """
    state, score, explanation = reply.stop or OK, None, None
    kept: str | None = reply.text
    if state == OK:
        try:
            score, explanation, mended = read(reply.text)
        except Unreadable as unreadable:
            state = str(unreadable)
        else:
            kept = reply.text if mended else None
    tokens = reply.prompt_tokens, reply.answer_tokens
    cost = price.of(*tokens) if price else 0.0
    return Outcome(state, score, explanation, kept, 1, *tokens, cost, reply.served)


def stop_of(finish_reason: Any) -> str | None:
    """The state of an answer that is not whole, by the reason why it ends; None if it is whole."""
    states = {"length": "truncated", "content_filter": "refused"}
    return states.get(finish_reason) if isinstance(finish_reason, str) else None


def _arguments(calls: Any) -> str:
    """The arguments of the model's call of the tool `answer`; empty if there is none.

    Raises:
        TypeError, AttributeError: The calls are no list of objects.
    """
    for call in calls or ():
        function = call.get("function") or {}
        if function.get("name") == TOOL and isinstance(function.get("arguments"), str):
            return str(function["arguments"])
    return ""


def _text(content: Any) -> str:
    """The text of a message's content.

    Raises:
        TypeError: The content is neither text nor a list of parts with text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part["text"] for part in content if part.get("type", "text") in _ANSWERING]
    if not parts:
        raise TypeError
    return "".join(parts)
