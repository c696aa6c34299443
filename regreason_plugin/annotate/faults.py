"""The faults of a call to a server: their names in the store, and which of them may pass."""

from __future__ import annotations

import asyncio
import html
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from traceback import walk_tb
from typing import Any

import aiohttp
import httpx2
import openai
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError

# Seconds that a call waits at most, even if the server asks for more.
_LONGEST_WAIT = 300.0
_STATES = {
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
# Below 500, only these statuses may pass; the other requests would fail again.
_PASSING = {408, 409, 425, 429}
# Codes of an error that no retry mends before somebody has paid.
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached"}
# The keys that hold the words of an error, in the shapes of OpenAI, FastAPI, Ollama and others.
_WORDS = ("error", "errors", "message", "detail", "error_description", "msg", "title")
# Larger bodies are not parsed for their words.
_MOST_PARSED = 1_000_000
_TAG = re.compile(r"<(script|style|head)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)
# A duration as Go prints it, such as ``6m0s`` or ``120ms``.
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
# Errors of the libraries that may come from bytes of the server, but also from our own mistakes.
AMBIGUOUS = (ValueError, LookupError, EOFError)
# Errors that a call to the client raises because of the server or the network.
SERVER_ERRORS = (openai.APIConnectionError, aiohttp.ClientError, HttpProcessingError)


class Fault(Exception):  # noqa: N818 - an outcome, not an error of ours
    """A call that got no reply.

    Attributes:
        kind: The fault's name in the store.
        server_text: The server's words about the error, or the words of the network.
        wait: Seconds that the server asks the client to wait; None if it names no time.
        attempts: Number of attempts that were made.
    """

    attempts = 1

    def __init__(self, kind: str, server_text: str = "", wait: float | None = None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.server_text = server_text
        self.wait = wait


class TransientFault(Fault):
    """A fault that may pass, so that the call is made again."""


class QuotaFault(Fault):
    """The account has no credit left."""


def status_fault(response: httpx2.Response) -> Fault:
    """The fault of a response whose status is not 2xx."""
    status = response.status_code
    words = f"{status} {server_words(response.content)}"
    if status == 402 or (status in {403, 429} and _QUOTA_CODES & _codes(response.content)):
        return QuotaFault("quota_used_up", words)
    if status < 400:
        return Fault("redirected", f"{status} {response.headers.get('location', '')}")
    kind = _STATES.get(status) or ("server_error" if status >= 500 else "refused_request")
    if status < 500 and status not in _PASSING:
        return Fault(kind, words)
    return TransientFault(kind, words, _asked_wait(response.headers))


def connection_fault(error: Exception) -> Fault:
    """The fault of an error that the client raises instead of returning a response."""
    causes = list(_causes(error))

    def first(*kinds: type[BaseException]) -> BaseException | None:
        return next((one for one in causes if isinstance(one, kinds)), None)

    # The transports wrap each other's errors and rename some of them: a refused or lost connection
    # is reported as a timeout. The errors of aiohttp itself are the reliable ones.
    if cause := first(aiohttp.ClientConnectorDNSError):
        kind = "unknown_host"
    elif cause := first(aiohttp.ClientSSLError, ssl.SSLError):
        kind = "tls_error"
    elif cause := first(aiohttp.ClientConnectorError):
        kind = "unreachable"
    elif cause := first(PayloadEncodingError):  # the body ends too early
        kind = "connection_lost"
    elif cause := first(
        aiohttp.ClientResponseError, HttpProcessingError, httpx2.DecodingError, *AMBIGUOUS
    ):
        kind = "bad_http"
    elif cause := first(asyncio.TimeoutError, TimeoutError):
        return TransientFault("stalled")
    else:
        cause, kind = first(aiohttp.ClientError) or error, "connection_lost"
    return TransientFault(kind, _cause_words(cause))


def from_transport(error: Exception) -> bool:
    """Whether an error was raised while a request was sent or its response received."""
    transport = ("aiohttp.", "openai._vendor.httpx_aiohttp.transport")
    return any(
        frame.f_globals.get("__name__", "").startswith(transport)
        for frame, _ in walk_tb(error.__traceback__)
    )


def server_words(body: bytes) -> str:
    """A server's words about an error, out of a body of any shape: JSON, HTML or plain text."""
    text = body.decode("utf-8", "replace")
    try:
        words = _words(json.loads(text)) if len(text) <= _MOST_PARSED else ""
    except (ValueError, RecursionError):
        words = ""
    if words:
        return words
    start = text[:_MOST_PARSED].lstrip()
    return html.unescape(_TAG.sub(" ", start)) if start.startswith("<") else text


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_words, value)))
    if not isinstance(value, dict):
        return ""
    named = {key.lower(): one for key, one in value.items()}
    words = (_words(named.get(key)) for key in _WORDS)
    return next(filter(None, words), "")


def _codes(body: bytes) -> set[str]:
    """The codes and types of an error; only those, as its words may repeat a conversation."""
    try:
        value = json.loads(body)
        if isinstance(value, list):
            value = value[0]
        error = value.get("error") if isinstance(value.get("error"), dict) else value
        return {str(error.get("code")), str(error.get("type"))}
    except (ValueError, RecursionError, AttributeError, IndexError):
        return set()


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _cause_words(cause: BaseException) -> str:
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return str(cause.certificate_error)
    if isinstance(cause, aiohttp.ClientConnectorError):
        return str(cause.os_error)
    # The string of these errors also has a status and an address, which are not the server's.
    if isinstance(cause, aiohttp.ClientResponseError | HttpProcessingError):
        return str(cause.message)
    # Its message may be an object with the part of the head that has arrived.
    return (
        "Server disconnected" if isinstance(cause, aiohttp.ServerDisconnectedError) else str(cause)
    )


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait; None if it names no time that lies ahead."""
    asked = (
        _number(headers.get("retry-after-ms"), 0.001),
        _number(headers.get("retry-after"), 1.0),
        _until(headers.get("retry-after")),
        *(
            _duration(headers.get(f"x-ratelimit-reset-{limit}"))
            for limit in ("requests", "tokens")
            if headers.get(f"x-ratelimit-remaining-{limit}") == "0"
        ),
    )
    # A comparison with nan is false, so nan names no time either.
    seconds = next((one for one in asked if one is not None and one > 0), None)
    return None if seconds is None else min(seconds, _LONGEST_WAIT)


def _number(value: str | None, unit: float) -> float | None:
    try:
        return None if value is None else float(value) * unit
    except ValueError:
        return None


def _until(value: str | None) -> float | None:
    try:
        return (parsedate_to_datetime(value or "") - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None


def _duration(value: str | None) -> float | None:
    match = _DURATION.fullmatch(value or "")
    if not match:
        return None
    hours, minutes, seconds, milliseconds = (float(one or 0) for one in match.groups())
    return 3600 * hours + 60 * minutes + seconds + milliseconds / 1000
