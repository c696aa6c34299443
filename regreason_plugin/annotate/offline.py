"""The calls of `regreason annotate` without a server: prompts for a batch, and their answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from regreason_plugin.annotate.asked_again import AskedAgain
from regreason_plugin.annotate.call_steps import open_store_for_calls, open_store_to_read
from regreason_plugin.annotate.calls import Call, CallKey
from regreason_plugin.annotate.config import read_config
from regreason_plugin.annotate.lanes import is_left, with_outcomes
from regreason_plugin.annotate.questions import Question, answer_reader
from regreason_plugin.annotate.reply import Reply, outcome_of, stop_of
from regreason_plugin.annotate.run import Annotation
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.core.errors import UserError, nearest

# The ways to ask for JSON in which the server gets the answer's schema.
_WITH_SCHEMA = ("json_schema", "guided_json", "tool")


@dataclass(frozen=True)
class AnnotationCall:
    """A call that a program of yours makes.

    Attributes:
        key: Names the call; give it back with the answer, unchanged.
        rater: The rater's name in the config.
        prompt: The whole prompt, to send as the only message, from the user.
        schema: JSON schema that the answer has to follow; None if the rater's ``structured`` is
            ``json_object`` or ``none``.
        options: The rater's ``temperature``, ``max_tokens`` and ``request``. They are part of the
            call's key in the store, so generate with them.
    """

    key: str
    rater: str
    prompt: str
    schema: dict[str, Any] | None
    options: dict[str, JsonValue]


@dataclass(frozen=True)
class CallAnswer:
    """A model's answer to a call of `annotation_calls`.

    Attributes:
        key: The call's ``key``.
        text: The whole text that the model has generated.
        finish_reason: Why the text ends, as servers name it: ``length`` if the limit of tokens cut
            it; None if unknown.
        prompt_tokens: Number of prompt tokens; 0 if unknown.
        answer_tokens: Number of generated tokens; 0 if unknown.
        served: Name of the model that has answered, for the provenance; None if unknown.

    Example:
        >>> from regreason_plugin import CallAnswer
        >>> CallAnswer("key of a call", '{"explanation": "It fits.", "score": 4}').finish_reason
    """

    key: str
    text: str
    finish_reason: str | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    served: str | None = None


def annotation_calls(
    config: str | Path, rater: str | None = None, *, retry_failed: bool = False
) -> Iterator[AnnotationCall]:
    """The calls that `regreason annotate` would make, to make them without a server.

    Calls that have an answer in the store are left out, so the calls after a stopped job are those
    that are left. With ``merge`` in the config, the calls for merging come as soon as no rater has
    a rating call left. Nothing is claimed: let one program make the calls of a rater.

    Args:
        config: The config of `regreason annotate`. The address of a rater is not used.
        rater: Only the calls of this rater; None for those of all raters.
        retry_failed: Also the calls whose answers cannot be used, except at temperature 0, where
            the same request gives the same answer.

    Yields:
        One call after the other, in the order of the config.

    Raises:
        UserError: The config, a conversation or a prompt is wrong, or no rater has that name.

    Example:
        >>> from regreason_plugin import annotation_calls
        >>> call = next(annotation_calls("annotate.yml"))
        >>> sorted(call.schema["properties"])
        ['explanation', 'score']
    """
    settings = read_config(Path(config))
    names = [server.name for server in settings.servers]
    if rater is not None and rater not in names:
        raise UserError(f"no rater behind a server is named {rater!r}; {nearest(rater, names)}")
    with open_store_to_read(settings.store_path, settings.servers) as store:
        annotation = Annotation(settings, store, AskedAgain(failed=retry_failed))
        rating = False
        for lane in annotation.lanes():
            for question, outcome in with_outcomes(store, lane):
                if is_left(lane, outcome):
                    rating = True
                    if rater not in (None, lane.rater.name):
                        break
                    yield _call(lane.rater, question)
        merging = None if rating else annotation.merge_lane()
        if merging and rater in (None, merging.rater.name):
            for question, outcome in with_outcomes(store, merging):
                if is_left(merging, outcome):
                    yield _call(merging.rater, question)


def store_answers(
    config: str | Path, answers: Iterable[CallAnswer], *, retry_failed: bool = False
) -> Counter[str]:
    """Read the answers to `annotation_calls` and store them, as `regreason annotate` does.

    Each answer is in the store as soon as it is read. An answer to a call that has one already, or
    that a running process makes at the moment, is left out. If no call is left,
    `regreason annotate` writes the ratings without making one.

    Args:
        config: The config that was given to `annotation_calls`, unchanged.
        answers: The answers, in any order.
        retry_failed: As given to `annotation_calls`: an answer replaces one that cannot be used.

    Returns:
        The number of stored answers by state: ``ok``, or why an answer cannot be used.

    Raises:
        UserError: The config or the store is wrong, or a key names no call of the config. The
            answers before it are stored.

    Example:
        >>> from regreason_plugin import CallAnswer, annotation_calls, store_answers
        >>> text = '{"explanation": "It fits.", "score": 4}'
        >>> answers = [CallAnswer(call.key, text) for call in annotation_calls("annotate.yml")]
        >>> dict(store_answers("annotate.yml", answers))
        {'ok': 3}
    """
    settings = read_config(Path(config))
    prices = {server.name: server.price for server in settings.servers}
    stored = Counter[str]()
    with open_store_for_calls(settings.store_path, settings.servers, None) as store:
        annotation = Annotation(settings, store, AskedAgain(failed=retry_failed))
        again = {lane.rater.name: lane.again for lane in annotation.lanes()}
        for answer in answers:
            call = _parsed(answer.key)
            if call is None or not annotation.makes(call.key):
                raise UserError(
                    f"the key {answer.key[:100]!r} names no call of {config}; give back the key "
                    "of a call of `annotation_calls`, and do not change the config in between"
                )
            name = call.key.rater
            if not store.claim([call], again=again[name]).mine:
                continue
            reply = Reply(
                answer.text,
                answer.prompt_tokens,
                answer.answer_tokens,
                stop_of(answer.finish_reason),
                answer.served,
            )
            outcome = outcome_of(reply, answer_reader(call.key.prompt), prices[name])
            store.finish(call, outcome)
            stored[outcome.state] += 1
    return stored


def _call(rater: ServerRater, question: Question) -> AnnotationCall:
    return AnnotationCall(
        json.dumps([*question.key, question.id]),
        rater.name,
        question.prompt(),
        question.schema if rater.structured in _WITH_SCHEMA else None,
        rater.request_body(),
    )


def _parsed(key: str) -> Call | None:
    """The call that a key names; None if the text is no key."""
    try:
        *columns, id_ = json.loads(key)
        return Call(CallKey(*map(str, columns)), str(id_))
    except (TypeError, ValueError):
        return None
