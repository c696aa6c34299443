"""One call to a server that speaks the OpenAI protocol, its retries and its faults.

The `openai` client sends the request. This module decides how often a fault is retried; `faults`
names the faults and `reply` reads the answer. Keys are read from the environment and sent to the
server only.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import httpx2
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from regreason_plugin.annotate.faults import (
    AMBIGUOUS,
    SERVER_ERRORS,
    Fault,
    QuotaFault,
    TransientFault,
    connection_fault,
    from_transport,
    status_fault,
)
from regreason_plugin.annotate.http_client import http_client
from regreason_plugin.annotate.pace import Pace, Waiting
from regreason_plugin.annotate.redaction import SHORTEST, Redaction
from regreason_plugin.annotate.reply import Reply, read_reply
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.core.errors import UserError

# Retries after status 429, counted apart from a rater's `retries`: 429 means "later", not that
# the call has failed.
_RATE_LIMITED_AT_MOST = 30
# Seconds before the first retry, doubled at every retry up to the longest backoff.
_FIRST_WAIT, _LONGEST_BACKOFF = 1.0, 60.0
# Characters that the store keeps of a server's error text.
_KEPT = 300


class Server:
    """A model behind an address, with its own client.

    Attributes:
        pace: The limit of the calls at once.
        waiting: Since when and why the server gives no replies; None if the last call had one.

    Args:
        rater: The rater's section of the config.

    Raises:
        UserError: An environment variable for a key or a header is not set, or its value cannot be
            one.
    """

    def __init__(self, rater: ServerRater) -> None:
        self._rater = rater
        key = _secret(rater.api_key_env, "api_key_env") if rater.api_key_env else ""
        headers: dict[str, Any] = {
            name: value if isinstance(value, str) else _secret(value.env, f"headers.{name}")
            for name, value in rater.headers.items()
        }
        secrets = [key] if key else []
        secrets += [headers[n] for n, one in rater.headers.items() if not isinstance(one, str)]
        self._redacted = Redaction(secrets)
        self._redacted_answer = Redaction(one for one in secrets if len(one) >= SHORTEST)
        self._body = rater.request_body()
        self.pace = Pace(rater.concurrency)
        self.waiting: Waiting | None = None
        self._client = openai.AsyncOpenAI(
            base_url=rater.address,
            default_query=rater.query,
            # Without a key here, the client would read OPENAI_API_KEY, which may belong to
            # another server.
            api_key=key or "none",
            timeout=rater.timeout,
            max_retries=0,
            http_client=http_client(rater.timeout),
        )
        # The client also reads account names, headers and an admin key from OPENAI_... variables;
        # they must not reach this server either.
        self._client.organization = self._client.project = self._client.admin_api_key = None
        self._client._custom_headers = headers
        authorized = key or "authorization" in map(str.lower, headers)
        self._omitted = {} if authorized else {"Authorization": openai.Omit()}

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
            UserError: The server refuses the key, or the account's quota is used up.
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
            seconds = min(_LONGEST_BACKOFF, _FIRST_WAIT * 2.0 ** min(attempts - 1, 20))
            seconds *= random.uniform(0.5, 1)
            # A server that asks for no pause at all is not believed.
            if fault.wait is not None and fault.wait >= _FIRST_WAIT:
                seconds = fault.wait + random.uniform(0, _FIRST_WAIT)
            if fault.kind == "rate_limited":
                self.pace.slow_down(seconds)
            since = self.waiting.since if self.waiting else time.monotonic()
            why = f"{fault.kind} ({fault.server_text})" if fault.server_text else fault.kind
            self.waiting = Waiting(since, why)
            return seconds

        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(TransientFault), stop=stop, wait=wait, reraise=True
            ):
                with attempt:
                    attempts += 1
                    async with self.pace:
                        reply = await self._once(prompt, schema)
                    self.pace.speed_up()
                    self.waiting = None
        except QuotaFault as fault:
            raise UserError(
                f"{self._rater.base_url} gives rater {self._rater.name!r} no more answers, because "
                f"its quota is used up ({fault.server_text}); raise the quota and run the same "
                "command again, all answers so far are in the store"
            ) from None
        except Fault as fault:
            fault.attempts = attempts
            raise
        return reply, attempts

    async def _once(self, prompt: str, schema: dict[str, Any]) -> Reply:
        # In the body as they are: servers know more fields than the client has arguments.
        body = {**self._body, **self._rater.structured_fields(schema)}
        options: dict[str, Any] = {"extra_body": body, "extra_headers": self._omitted}
        with self.faults():
            # The raw response, because the client would turn a body that is no chat completion
            # into a half-filled object; `read_reply` names that fault.
            request = self._client.chat.completions.with_raw_response.create(
                model=self._rater.model, messages=[{"role": "user", "content": prompt}], **options
            )
            # The client's own timeout restarts with every piece of an answer that arrives.
            raw = await asyncio.wait_for(request, self._rater.timeout)
        return self.read(raw.http_response)

    def read(self, response: httpx2.Response) -> Reply:
        """Read the reply out of a response, without the secrets.

        Raises:
            Fault: The status is not 2xx, or the body is no chat completion.
        """
        with self.faults():
            if not response.is_success:
                raise status_fault(response)
            reply = read_reply(response.headers.get("content-type", ""), response.content)
        served = self._redacted.start(reply.served, _KEPT) if reply.served else None
        return replace(reply, text=self._redacted_answer(reply.text), served=served)

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Within the block, errors of the client become faults, without the secrets.

        Raises:
            Fault: A request in the block has failed.
            UserError: The server refuses the key.
        """
        try:
            with self._named_errors():
                yield
        except Fault as fault:
            fault.server_text = self._redacted.start(fault.server_text, _KEPT)
            raise

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except openai.AuthenticationError:
            self._refuse_key()
        except openai.APIStatusError as error:
            raise status_fault(error.response) from None
        except TimeoutError:
            raise TransientFault("stalled") from None
        except SERVER_ERRORS as error:
            raise connection_fault(error) from None
        except AMBIGUOUS as error:
            if not from_transport(error):
                raise
            raise connection_fault(error) from None

    def _refuse_key(self) -> NoReturn:
        variable = self._rater.api_key_env
        where = f"the key in {variable}" if variable else "calls without a key (api_key_env)"
        raise UserError(
            f"{self._rater.base_url} refuses {where} with status 401; set the key and run the "
            "same command again"
        ) from None


def _secret(variable: str, field: str) -> str:
    """The value of an environment variable, for a key or a header.

    Raises:
        UserError: It is not set, or cannot stand in a header.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UserError(
            f"the environment variable {variable} is not set; set it to the value for the server",
            field=field,
        )
    # A scheme such as "Bearer" may stand before the key.
    if not re.fullmatch(r"[!-~]+" if field == "api_key_env" else r"[!-~]+(?: [!-~]+)*", value):
        raise UserError(
            f"the value of the environment variable {variable} contains white space or "
            "characters outside ASCII, so it cannot be a key; set it again",
            field=field,
        )
    return value
