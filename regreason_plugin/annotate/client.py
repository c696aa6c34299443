"""One call to a server that speaks the OpenAI protocol, its retries and its faults.

The `openai` client sends the request. This module decides which faults are retried and how often,
and gives each fault its name in the store. The key is read from the environment and sent to the
server only.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from regreason_plugin.annotate.config import ServerRater
from regreason_plugin.core.errors import UserError

# Retries after status 429, counted apart from a rater's `retries`: 429 means "later", not that
# the call has failed.
_RATE_LIMITED_AT_MOST = 30
# Seconds before the first retry, doubled at every retry up to the longest backoff.
_FIRST_WAIT, _LONGEST_BACKOFF = 1.0, 60.0
# Seconds that a call waits at most, even if the server asks for more.
_LONGEST_WAIT = 300.0
# Characters that the store keeps of a server's error text.
_KEPT = 300
# A larger token count is a server's error, and would not fit into the store.
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
# Not retried: the same request would fail again.
_FINAL = {"bad_request", "forbidden", "not_found", "request_too_large"}


@dataclass(frozen=True)
class Reply:
    """A server's reply.

    Attributes:
        text: The content of the message.
        prompt_tokens: Number of prompt tokens, as the server counts them.
        answer_tokens: Number of answer tokens, as the server counts them.
        stop: The reason why the answer is incomplete, ``truncated`` or ``refused``; None for a
            complete answer.
    """

    text: str
    prompt_tokens: int
    answer_tokens: int
    stop: str | None


class Fault(Exception):  # noqa: N818 - an outcome, not an error of ours
    """A call that got no reply.

    Attributes:
        kind: The fault's name in the store.
        server_text: The start of the server's error text, with the key removed.
        wait: Seconds that the server asks the client to wait; None if it names no time.
        attempts: Number of attempts that were made.
    """

    attempts = 1

    def __init__(self, kind: str, server_text: str = "", wait: float | None = None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.server_text = server_text
        self.wait = wait


class _Transient(Fault):
    """A fault that may pass, so that the call is made again."""


class Pace:
    """Limits the calls that run at once: halved after status 429, then slowly raised again.

    Args:
        most: The largest number of calls at once, which is also the first limit.
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
        """Start no call for some seconds, then allow half as many calls at once."""
        resume = asyncio.get_running_loop().time() + seconds
        # Many calls get a 429 at the same moment; together they halve the limit only once.
        if resume > self._resume + 0.5 * seconds:
            self._limit = max(1.0, self._limit / 2)
        self._resume = max(self._resume, resume)

    def speed_up(self) -> None:
        """Raise the limit a little; called after a call that succeeded."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)


class Server:
    """A model behind an address, with its own client.

    Args:
        rater: The rater's section of the config.

    Raises:
        UserError: The environment variable for the key is not set, or its value cannot be a key.
    """

    def __init__(self, rater: ServerRater) -> None:
        self._rater = rater
        variable = rater.api_key_env
        self._key = os.environ.get(variable, "").strip() if variable else ""
        if variable and not self._key:
            raise UserError(
                f"the environment variable {variable} is not set; set it to the key for "
                f"{rater.base_url}",
                field="api_key_env",
            )
        if not re.fullmatch(r"[!-~]*", self._key):
            raise UserError(
                f"the value of the environment variable {variable} contains white space or "
                "characters outside ASCII, so it cannot be a key; set it again",
                field="api_key_env",
            )
        self.pace = Pace(rater.concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=rater.base_url,
            # Without a key here, the client would send OPENAI_API_KEY, which may belong to
            # another server.
            api_key=self._key or "none",
            timeout=rater.timeout,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(timeout=rater.timeout),
        )
        # The client also reads account names, headers and an admin key from OPENAI_... variables;
        # they must not reach this server either.
        self._client.organization = self._client.project = self._client.admin_api_key = None
        self._client._custom_headers = {}

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()

    async def ask(self, prompt: str, schema: dict[str, Any]) -> tuple[Reply, int]:
        """Send a prompt, and retry after faults that may pass.

        Args:
            prompt: The whole prompt.
            schema: The JSON schema of the answer.

        Returns:
            The reply and the number of attempts.

        Raises:
            Fault: The last attempt has failed; ``attempts`` is set.
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
        # Passed through in the body: servers accept more options than the client has arguments.
        options: dict[str, Any] = {"extra_body": self._rater.request_options()}
        if self._rater.structured == "json_schema":
            described = {"name": "answer", "strict": True, "schema": schema}
            options["response_format"] = {"type": "json_schema", "json_schema": described}
        elif self._rater.structured == "json_object":
            options["response_format"] = {"type": "json_object"}
        try:
            # The raw response, because the client would turn a body that is no chat completion
            # into a half-filled object; `read_reply` names that fault.
            request = self._client.chat.completions.with_raw_response.create(
                model=self._rater.model, messages=[{"role": "user", "content": prompt}], **options
            )
            # The client's own timeout restarts with every piece of an answer that arrives.
            raw = await asyncio.wait_for(request, self._rater.timeout)
        except openai.AuthenticationError:
            variable = self._rater.api_key_env
            where = f"the key in {variable}" if variable else "calls without a key (api_key_env)"
            raise UserError(
                f"{self._rater.base_url} refuses {where} with status 401; set the key and run the "
                "same command again"
            ) from None
        except openai.APIStatusError as error:
            raise self._status_fault(error) from None
        except TimeoutError:
            raise _Transient("stalled") from None
        except openai.APIConnectionError as error:
            raise _Transient(_connection_kind(error)) from None
        response = raw.http_response
        try:
            reply = read_reply(response.headers.get("content-type", ""), response.content)
        except Fault as fault:
            fault.server_text = self._without_key(fault.server_text)[:_KEPT]
            raise
        # A shorter "key" is a placeholder for a server without keys; an answer may contain it.
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
    """Read the reply out of a response's body.

    Raises:
        Fault: The body is no chat completion.
    """
    # Cut only here, not at `_KEPT`, so that a key inside the kept part is whole and is removed.
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
    # The transports wrap each other's errors and rename some of them: a refused or lost connection
    # is reported as a timeout. The error of aiohttp itself is the reliable one.
    if any(isinstance(one, aiohttp.ClientConnectorError) for one in causes):
        return "unreachable"
    if any(isinstance(one, asyncio.TimeoutError | TimeoutError) for one in causes):
        return "stalled"
    return "connection_lost"


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a Retry-After header that holds a number or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    # max(0.0, nan) is 0.0, so a header of "nan" means no wait.
    return min(max(0.0, seconds), _LONGEST_WAIT)
