"""One call to a server that speaks the OpenAI protocol, and what can go wrong with it.

The `openai` client carries it; what is retried, how often, and what every fault is called in the
store is decided here. The key is read from the environment and goes to the server alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from regreason_plugin.annotate.config import ServerRater
from regreason_plugin.core.errors import UserError

# Too many requests are the server's way of saying "later", not a failure of the call.
_RATE_LIMITED_AT_MOST = 30
# Seconds; doubled at every further attempt, up to the second one.
_FIRST_WAIT, _LONGEST_BACKOFF = 1.0, 60.0
_LONGEST_WAIT = 300.0
# So much of what a server said beside an answer is kept, in characters.
_KEPT = 300
# Nobody's answer has more; more would not fit into the store.
_MOST_TOKENS = 2**40
_KINDS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    408: "request_timeout",
    409: "conflict",
    413: "request_too_large",
    422: "bad_request",
    429: "rate_limited",
    503: "unavailable",
}
# Asking the same again gives the same.
_FINAL = {"bad_request", "forbidden", "not_found", "request_too_large"}


@dataclass(frozen=True)
class Reply:
    """What a server said.

    Attributes:
        text: The message's content.
        stop: None, or why it is no whole answer: ``truncated``, ``refused``.
    """

    text: str
    prompt_tokens: int
    answer_tokens: int
    stop: str | None


class Fault(Exception):  # noqa: N818 - an outcome, not an error of ours
    """A call without a reply.

    Attributes:
        kind: Its name in the store.
        server_text: The start of what the server said, without the key.
        wait: Seconds that the server asked to wait, if it did.
        attempts: How often it was tried.
    """

    attempts = 1

    def __init__(self, kind: str, server_text: str = "", wait: float | None = None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.server_text = server_text
        self.wait = wait


class _Transient(Fault):
    """One that may be gone the next time."""


class Pace:
    """How many calls may run at once: halved when a server asks for less, growing back slowly.

    Args:
        most: The number it starts with and never exceeds.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._active = 0
        self._resume = 0.0
        self._freed = asyncio.Event()

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait = self._resume - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            elif self._active < int(self._limit):
                self._active += 1
                return
            else:
                self._freed.clear()
                await self._freed.wait()

    async def __aexit__(self, *error: object) -> None:
        self._active -= 1
        self._freed.set()

    def slow_down(self, seconds: float) -> None:
        """Start nothing for a while, and then half as much at once."""
        resume = asyncio.get_running_loop().time() + seconds
        # Many calls are told at the same time; they are one piece of news.
        if resume > self._resume + 0.5 * seconds:
            self._limit = max(1.0, self._limit / 2)
        self._resume = max(self._resume, resume)

    def speed_up(self) -> None:
        """After a call that went well."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)


class Server:
    """A model behind an address, with a client of its own.

    Args:
        rater: Its part of the config.

    Raises:
        UserError: The environment variable with the key is not set, or holds what no key can be.
    """

    def __init__(self, rater: ServerRater) -> None:
        self._rater = rater
        variable = rater.api_key_env
        self._key = os.environ.get(variable, "").strip() if variable else ""
        if variable and not self._key:
            raise UserError(
                f"the environment variable {variable} is not set; it has to hold the key "
                f"for {rater.base_url}",
                field="api_key_env",
            )
        if not re.fullmatch(r"[!-~]*", self._key):
            raise UserError(
                f"the environment variable {variable} holds white space or letters outside "
                "ASCII, which no key does; set it anew",
                field="api_key_env",
            )
        self.pace = Pace(rater.concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=rater.base_url,
            # Never the key that the client would find in OPENAI_API_KEY by itself: it may be
            # another server's.
            api_key=self._key or "none",
            timeout=rater.timeout,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(timeout=rater.timeout),
        )
        # Whatever else it has found in OPENAI_...: names of an account, headers, another key.
        self._client.organization = self._client.project = self._client.admin_api_key = None
        self._client._custom_headers = {}

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def ask(self, prompt: str, schema: dict[str, Any]) -> tuple[Reply, int]:
        """Ask, and ask again while that may help.

        Args:
            prompt: The whole question.
            schema: The JSON schema of the answer.

        Returns:
            The reply and the number of attempts.

        Raises:
            Fault: With ``attempts`` set, when the last attempt has failed.
            UserError: The server refuses the key.
        """
        attempts = 0
        limited = 0

        def stop(state: RetryCallState) -> bool:
            nonlocal limited
            fault = state.outcome and state.outcome.exception()
            limited += isinstance(fault, Fault) and fault.kind == "rate_limited"
            return limited > _RATE_LIMITED_AT_MOST or attempts - limited > self._rater.retries

        def wait(state: RetryCallState) -> float:
            fault = state.outcome and state.outcome.exception()
            assert isinstance(fault, Fault)
            seconds = fault.wait
            if seconds is None:
                seconds = min(_LONGEST_BACKOFF, _FIRST_WAIT * 2 ** min(attempts - 1, 20))
                seconds *= random.uniform(0.5, 1)
            if fault.kind == "rate_limited":
                self.pace.slow_down(seconds)
            return seconds

        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_Transient), stop=stop, wait=wait, reraise=True
            ):
                with attempt:
                    attempts += 1
                    async with self.pace:
                        reply = await self._once(prompt, schema)
                    self.pace.speed_up()
        except Fault as fault:
            fault.attempts = attempts
            raise
        return reply, attempts

    async def _once(self, prompt: str, schema: dict[str, Any]) -> Reply:
        # In the body as they are: servers know more names than the client.
        options: dict[str, Any] = {"extra_body": self._rater.request_options()}
        if self._rater.structured == "json_schema":
            described = {"name": "answer", "strict": True, "schema": schema}
            options["response_format"] = {"type": "json_schema", "json_schema": described}
        elif self._rater.structured == "json_object":
            options["response_format"] = {"type": "json_object"}
        try:
            # Raw: a body that is no chat completion is a fault with a name, not a half-made object.
            request = self._client.chat.completions.with_raw_response.create(
                model=self._rater.model, messages=[{"role": "user", "content": prompt}], **options
            )
            # The client's own limit is from one piece of an answer to the next.
            raw = await asyncio.wait_for(request, self._rater.timeout)
        except openai.AuthenticationError:
            variable = self._rater.api_key_env
            where = f"in {variable}" if variable else "(none: api_key_env is not set)"
            raise UserError(
                f"{self._rater.base_url} refuses the key {where} (401); set it and run the same "
                "command again"
            ) from None
        except openai.APIStatusError as error:
            raise self._status_fault(error) from None
        except asyncio.TimeoutError:
            raise _Transient("stalled") from None
        except openai.APIConnectionError as error:
            raise _Transient(_connection_kind(error)) from None
        response = raw.http_response
        try:
            reply = read_reply(response.headers.get("content-type", ""), response.content)
        except Fault as fault:
            fault.server_text = self._without_key(fault.server_text)[:_KEPT]
            raise
        # Words that stand for a key where none is needed may stand in an answer, too.
        return reply if len(self._key) < 8 else replace(reply, text=self._without_key(reply.text))

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _status_fault(self, error: openai.APIStatusError) -> Fault:
        status = error.status_code
        kind = _KINDS.get(status) or ("server_error" if status >= 500 else "refused_request")
        server_text = self._without_key(" ".join(str(error.message).split()))[:_KEPT]
        if kind in _FINAL or (status < 500 and status not in {408, 409, 429}):
            return Fault(kind, server_text)
        return _Transient(
            kind, server_text, _retry_after(error.response.headers.get("retry-after"))
        )


def read_reply(content_type: str, body: bytes) -> Reply:
    """What a server's answer holds, or the fault it is."""
    # Long enough that a key in what is kept of it is whole.
    body_text = body[:20_000].decode("utf-8", "replace")
    if "json" not in content_type.lower():
        raise _Transient("wrong_content_type", body_text)
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):
        raise _Transient("broken_body", body_text) from None
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content") or "", message.get("refusal")
        usage = completion.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        if not all(0 <= number < _MOST_TOKENS for number in tokens):
            raise ValueError
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
        raise _Transient("no_completion", body_text) from None
    stop = None
    if refusal or reason == "content_filter":
        stop, text = "refused", str(refusal or text)
    elif reason == "length":
        stop = "truncated"
    return Reply(str(text), *tokens, stop)


def _connection_kind(error: openai.APIConnectionError) -> str:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    # The transports wrap each other's errors, and call some by a wrong name: a refused or a lost
    # connection comes out as a timeout. aiohttp's own is the one to believe.
    if any(isinstance(one, aiohttp.ClientConnectorError) for one in causes):
        return "unreachable"
    if any(isinstance(one, asyncio.TimeoutError | TimeoutError) for one in causes):
        return "stalled"
    return "connection_lost"


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds()
        except (ValueError, TypeError):
            return None
    # Not a number, as "nan" is one to Python, is no wait.
    return min(max(0.0, seconds), _LONGEST_WAIT)
