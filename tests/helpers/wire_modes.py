"""A raw-socket server that answers in many named ways, most of them wrong.

    with serving() as server: ...      server.url, server.requests

It writes bytes to the connection, without an HTTP library, so that it can also break HTTP. Each
mode has its expected outcome. `python tests/helpers/wire_modes.py` writes the table of the docs.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

PAGE = Path(__file__).parents[2] / "docs/reference/server_faults.md"
# Retries of a call, and after status 429, that the expected numbers of requests assume.
RETRIES, RATE_LIMITED = 2, 3
KEY = "sk-wire/7d1f+2a77_03Zq"
# Stands for a pause between two packets.
PAUSE = b"@@PAUSE@@"
# Once retried, and tried until the retries are used up.
_ONCE, _TWICE, _ALL = 1, 2, 1 + RETRIES
ANSWER = '{"explanation": "It reads well.", "score": 4}'
EXPLANATION = "It reads well."


@dataclass(frozen=True)
class WireMode:
    """A way to answer, and its outcome.

    Attributes:
        group: The part of the table.
        name: The mode's name.
        about: The server's answer, in words.
        sent: The bytes that are sent; then the connection ends.
        state: The state in the store; ``stops`` for a mode that ends the run.
        requests: Number of requests that a call makes.
        stored: The text in the store: the explanation of an answer, the words of a fault.
        pause: Seconds before the connection ends.
    """

    group: str
    name: str
    about: str
    sent: bytes
    state: str
    requests: int
    stored: str | None = None
    pause: float = 0.0


def http(
    body: bytes | str = b"",
    status: str = "200 OK",
    kind: str | None = "application/json",
    *headers: str,
    length: bool = True,
) -> bytes:
    """The bytes of a correct response."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", *([f"Content-Type: {kind}"] if kind else []), *headers]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return ("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode("latin-1") + body


def chat(content: Any = ANSWER, finish: str | None = "stop", **message: Any) -> bytes:
    """The body of a chat completion."""
    choice = {"finish_reason": finish, "message": {"content": content, **message}}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"model": "served-model", "choices": [choice], "usage": usage}).encode()


def _chunked(*chunks: bytes) -> bytes:
    return http(b"", "200 OK", "application/json", "Transfer-Encoding: chunked", length=False) + (
        b"".join(chunks)
    )


def _chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


def _status(status: str, body: Any, kind: str | None = "application/json", *headers: str) -> bytes:
    return http(body if isinstance(body, bytes | str) else json.dumps(body), status, kind, *headers)


def _error(words: str) -> dict[str, Any]:
    return {"error": {"message": words, "type": "some_error"}}


_GOOD = chat()
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_GZIPPED = gzip.compress(_GOOD, mtime=0)
_ESCAPED_KEY = "".join(f"\\u{ord(one):04x}" for one in KEY)

_FRAMES: list[tuple[Any, ...]] = [
    (
        "chunked",
        "a correct body in chunks",
        _chunked(_chunk(_GOOD[:9]), _chunk(_GOOD[9:]), b"0\r\n\r\n"),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "until-closed",
        "a body without a length",
        http(_GOOD, length=False),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "continue",
        "`100 Continue` before the response",
        b"HTTP/1.1 100 Continue\r\n\r\n" + http(_GOOD),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "early-hints",
        "`103 Early Hints` before the response",
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + http(_GOOD),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "gzip",
        "a body in gzip",
        http(_GZIPPED, "200 OK", "application/json", "Content-Encoding: gzip"),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "cookie",
        "a cookie that is not ASCII; it is not sent back",
        http(_GOOD, "200 OK", "application/json", "Set-Cookie: a=\xff; Path=/"),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "length-twice-equal",
        "the same length twice",
        _HEAD + f"Content-Length: {len(_GOOD)}\r\n".encode() * 2 + b"\r\n" + _GOOD,
        "bad_http",
        _ALL,
    ),
    ("garbage", "garbage instead of a status line", b"GARBAGE\r\n\r\n", "bad_http", _ALL),
    ("no-status-line", "a body without a head", _GOOD, "bad_http", _ALL),
    ("status-word", "a word instead of the status", b"HTTP/1.1 OK\r\n\r\n", "bad_http", _ALL),
    (
        "status-two-digits",
        "a status of two digits",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "bad_http",
        _ALL,
    ),
    (
        "reason-not-utf8",
        "a reason that is not UTF-8",
        b"HTTP/1.1 200 \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        "bad_http",
        _ALL,
    ),
    ("http2", "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_http", _ALL),
    ("tls", "TLS on a plain port", b"\x15\x03\x01\x00\x02\x02\x46", "bad_http", _ALL),
    ("ssh", "the banner of SSH", b"SSH-2.0-OpenSSH_9.6\r\n", "bad_http", _ALL),
    (
        "header-20k",
        "a header of 20 kB",
        _HEAD + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n",
        "bad_http",
        _ALL,
    ),
    ("header-no-colon", "a header without a colon", _HEAD + b"Nonsense\r\n\r\n", "bad_http", _ALL),
    ("header-nul", "a header with a NUL", _HEAD + b"X-Nul: a\0b\r\n\r\n", "bad_http", _ALL),
    ("header-5000", "5,000 headers", _HEAD + b"X-One: 1\r\n" * 5_000 + b"\r\n", "bad_http", _ALL),
    (
        "length-word",
        "a word as the length",
        _HEAD + b"Content-Length: many\r\n\r\n" + _GOOD,
        "bad_http",
        _ALL,
    ),
    (
        "length-negative",
        "a negative length",
        _HEAD + b"Content-Length: -5\r\n\r\n" + _GOOD,
        "bad_http",
        _ALL,
    ),
    (
        "length-twice",
        "two different lengths",
        _HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + _GOOD,
        "bad_http",
        _ALL,
    ),
    (
        "length-and-chunks",
        "a length and chunks",
        _HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad_http",
        _ALL,
    ),
    (
        "length-too-small",
        "a length smaller than the body",
        _HEAD + b"Content-Length: 30\r\n\r\n" + _GOOD,
        "bad_http",
        _ALL,
    ),
    ("chunk-size-word", "a word as the size of a chunk", _chunked(b"zz\r\n"), "bad_http", _ALL),
    (
        "chunk-size-negative",
        "a negative size of a chunk",
        _chunked(b"-5\r\nabcde\r\n"),
        "bad_http",
        _ALL,
    ),
    (
        "chunk-size-huge",
        "a size of a chunk with 40 digits",
        _chunked(b"f" * 40 + b"\r\n"),
        "bad_http",
        _ALL,
    ),
    (
        "chunk-no-end",
        "a chunk that is longer than its size",
        _chunked(b"5\r\nabcdefgh\r\n0\r\n\r\n"),
        "bad_http",
        _ALL,
    ),
    (
        "chunk-size-word-later",
        "a word as the size of a chunk that comes later",
        _chunked(_chunk(_GOOD[:9]), PAUSE, b"zz\r\n"),
        "stalled",
        _ALL,
    ),
    (
        "gzip-wrong",
        "a plain body that claims gzip",
        http(_GOOD, "200 OK", "application/json", "Content-Encoding: gzip"),
        "bad_http",
        _ALL,
    ),
    (
        "gzip-cut",
        "half a body in gzip",
        http(_GZIPPED[:40], "200 OK", "application/json", "Content-Encoding: gzip"),
        "broken_body",
        _ALL,
    ),
    (
        "deflate-wrong",
        "a plain body that claims deflate",
        http(_GOOD, "200 OK", "application/json", "Content-Encoding: deflate"),
        "bad_http",
        _ALL,
    ),
    (
        "brotli-wrong",
        "a plain body that claims Brotli",
        http(_GOOD, "200 OK", "application/json", "Content-Encoding: br"),
        "bad_http",
        _ALL,
    ),
    (
        "error-gzip-wrong",
        "an error that claims gzip",
        _status("500 No", "it fell over, in plain text", "text/plain", "Content-Encoding: gzip"),
        "bad_http",
        _ALL,
    ),
    ("nothing", "the connection ends without a byte", b"", "connection_lost", _ALL),
    ("half-status-line", "half a status line", b"HTTP/1.1 2", "connection_lost", _ALL),
    ("half-head", "half a head", b"HTTP/1.1 200 OK\r\nContent-Ty", "connection_lost", _ALL),
    (
        "body-cut",
        "half a body",
        _HEAD + b"Content-Length: 9999\r\n\r\n" + _GOOD,
        "connection_lost",
        _ALL,
    ),
    ("chunk-cut", "half a chunk", _chunked(b"ff\r\nabc"), "connection_lost", _ALL),
    ("stall", "no byte within `timeout`", b"", "stalled", _ALL, None, 60.0),
    (
        "stall-in-body",
        "half a body, and no more within `timeout`",
        _HEAD + b"Content-Length: 9999\r\n\r\n{",
        "stalled",
        _ALL,
        None,
        60.0,
    ),
]
_STATUSES: list[tuple[Any, ...]] = [
    (
        "204",
        "204 without a body",
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        "wrong_content_type",
        _ALL,
    ),
    (
        "301",
        "a redirect",
        _status("301 Moved", "", None, "Location: http://127.0.0.1:9/v2"),
        "redirected",
        _ONCE,
        "301 http://127.0.0.1:9/v2",
    ),
    (
        "308",
        "a redirect that keeps the request",
        _status("308 Moved", "", None, "Location: /v2"),
        "redirected",
        _ONCE,
        "308 /v2",
    ),
    (
        "400-openai",
        "400, the error as OpenAI writes it",
        _status("400 Bad", _error("no such field")),
        "bad_request",
        _ONCE,
        "400 no such field",
    ),
    (
        "400-word",
        '400, `{"error": "..."}`',
        _status("400 Bad", {"error": "no such field"}),
        "bad_request",
        _ONCE,
        "400 no such field",
    ),
    (
        "400-list",
        "400, a list with an error",
        _status("400 Bad", [_error("no such field")]),
        "bad_request",
        _ONCE,
        "400 no such field",
    ),
    (
        "403",
        '403, `{"message": "..."}`',
        _status("403 No", {"message": "not from here"}),
        "forbidden",
        _ONCE,
        "403 not from here",
    ),
    (
        "404-detail",
        '404, `{"detail": "..."}`',
        _status("404 No", {"detail": "no such model"}),
        "not_found",
        _ONCE,
        "404 no such model",
    ),
    (
        "404-text",
        "404, plain text",
        _status("404 No", "404 page not found", "text/plain"),
        "not_found",
        _ONCE,
        "404 404 page not found",
    ),
    (
        "405",
        "405",
        _status("405 No", {"detail": "Method Not Allowed"}),
        "refused_request",
        _ONCE,
        "405 Method Not Allowed",
    ),
    ("408", "408", _status("408 Late", ""), "request_timeout", _ALL, "408"),
    ("409", "409", _status("409 Busy", {"error": "busy"}), "conflict", _ALL, "409 busy"),
    (
        "413-html",
        "413, a page",
        _status(
            "413 Big",
            "<html><head><title>x</title></head><body><h1>Too large</h1>&amp; more</body>",
            "text/html",
        ),
        "request_too_large",
        _ONCE,
        "413 Too large & more",
    ),
    (
        "422-fastapi",
        "422, the errors as FastAPI writes them",
        _status(
            "422 No",
            {"detail": [{"loc": ["body", "n"], "msg": "Field required"}, {"msg": "Extra"}]},
        ),
        "bad_request",
        _ONCE,
        "422 Field required; Extra",
    ),
    ("425", "425 Too Early", _status("425 Early", ""), "refused_request", _ALL, "425"),
    (
        "500-text",
        "500, plain text",
        _status("500 No", "it fell\nover", "text/plain"),
        "server_error",
        _ALL,
        "500 it fell over",
    ),
    ("500-empty", "500 without a body", _status("500 No", "", None), "server_error", _ALL, "500"),
    (
        "500-deep",
        "500, JSON of 100,000 levels",
        _status("500 No", "[" * 100_000),
        "server_error",
        _ALL,
        f"500 {'[' * 296}",
    ),
    (
        "500-charset",
        "500, a charset that holds no text",
        _status("500 No", "it fell", "text/plain; charset=hex"),
        "server_error",
        _ALL,
        "500 it fell",
    ),
    (
        "500-latin",
        "500, bytes that are not UTF-8",
        _status("500 No", b"caf\xe9", "text/plain"),
        "server_error",
        _ALL,
        "500 caf\ufffd",
    ),
    (
        "500-terminal",
        "500, terminal escapes and right-to-left marks",
        _status("500 No", _error("a\x1b[31mred\x07 \u202etxt")),
        "server_error",
        _ALL,
        "500 a [31mred txt",
    ),
    (
        "500-key",
        "500 that repeats the key",
        _status("500 No", f"key {KEY} failed", "text/plain"),
        "server_error",
        _ALL,
        "500 key [key] failed",
    ),
    (
        "500-key-json",
        "500, the key in escapes of JSON, in broken JSON",
        _status("500 No", f'{{"key": "{_ESCAPED_KEY}"'),
        "server_error",
        _ALL,
        '500 {"key": "[key]"',
    ),
    (
        "500-key-json-twice",
        "500, the key in JSON within JSON",
        _status("500 No", _error(json.dumps({"key": _ESCAPED_KEY}))),
        "server_error",
        _ALL,
        '500 {"key": "[key]"}',
    ),
    (
        "500-key-url",
        "500, the key as in an address",
        _status("500 No", f"?key={quote(KEY, safe='')}&x=1", "text/plain"),
        "server_error",
        _ALL,
        "500 ?key=[key]&x=1",
    ),
    (
        "500-key-base64",
        "500, the key in base64",
        _status("500 No", base64.b64encode(KEY.encode()).decode().rstrip("="), "text/plain"),
        "server_error",
        _ALL,
        "500 [key]Q",
    ),
    (
        "500-key-split",
        "500, the key split over terminal escapes and lines",
        _status("500 No", f"{KEY[:5]}\x1b[0m{KEY[5:9]}\r\n{KEY[9:]}", "text/plain"),
        "server_error",
        _ALL,
        "500 [key]",
    ),
    (
        "502-html",
        "502, a gateway's page",
        _status("502 Bad Gateway", "<html><h1>502 Bad Gateway</h1>nginx</html>", "text/html"),
        "server_error",
        _ALL,
        "502 502 Bad Gateway nginx",
    ),
    (
        "503",
        '503, `{"error": "..."}`',
        _status("503 Busy", {"error": "loading model"}),
        "unavailable",
        _ALL,
        "503 loading model",
    ),
    (
        "529",
        "529",
        _status("529 Busy", _error("overloaded")),
        "server_error",
        _ALL,
        "529 overloaded",
    ),
    (
        "429",
        "429 without a time",
        _status("429 Slow", _error("slow down")),
        "rate_limited",
        1 + RATE_LIMITED,
        "429 slow down",
    ),
    *(
        (
            f"429-{name}",
            f"429, `{header}`",
            _status("429 Slow", _error("slow down"), "application/json", header),
            "rate_limited",
            1 + RATE_LIMITED,
            "429 slow down",
        )
        for name, header in (
            ("zero", "Retry-After: 0"),
            ("negative", "Retry-After: -5"),
            ("nan", "Retry-After: nan"),
            ("past", "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"),
            ("tiny", "Retry-After: 0.001"),
            ("words", "Retry-After: soon"),
            ("milliseconds", "Retry-After-Ms: 20"),
        )
    ),
    (
        "402",
        "402: the quota is used up",
        _status("402 Pay", {"error": {"message": "Insufficient Balance"}}),
        "stops",
        _ONCE,
    ),
    (
        "429-quota",
        "429, code `insufficient_quota`",
        _status(
            "429 Slow",
            {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}},
        ),
        "stops",
        _ONCE,
    ),
    (
        "429-billing",
        "429, type `billing_hard_limit_reached`",
        _status("429 Slow", {"error": {"message": "Limit", "type": "billing_hard_limit_reached"}}),
        "stops",
        _ONCE,
    ),
    ("401", "401: the key is refused", _status("401 No", _error("wrong key")), "stops", _ONCE),
]
_TEXT = {"type": "text", "text": ANSWER}
_IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
_BODIES: list[tuple[Any, ...]] = [
    (
        "parts",
        "content in two parts",
        http(chat([{"type": "text", "text": ANSWER[:20]}, {"type": "text", "text": ANSWER[20:]}])),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "parts-others",
        "content with a part of thinking and an image",
        http(chat([{"type": "thinking", "thinking": "{}"}, _IMAGE, _TEXT])),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "parts-accent",
        "content in a part, with an escape of JSON",
        http(chat([{"type": "text", "text": '{"explanation": "Caf\u00e9.", "score": 4}'}])),
        "ok",
        _ONCE,
        "Caf\u00e9.",
    ),
    (
        "bom",
        "UTF-8 with a byte order mark",
        http(b"\xef\xbb\xbf" + _GOOD),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    ("utf-16", "UTF-16", http(_GOOD.decode().encode("utf-16")), "ok", _ONCE, EXPLANATION),
    (
        "thinking-beside",
        "an answer, and thinking in `reasoning_content`",
        http(chat(reasoning_content='{"explanation": "Draft.", "score": 1}')),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "reasoning-beside",
        "an answer, and thinking in `reasoning`",
        http(chat(reasoning="Hm.")),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "no-usage",
        "an answer without usage and model",
        http(json.dumps({"choices": [{"message": {"content": ANSWER}}]})),
        "ok",
        _ONCE,
        EXPLANATION,
    ),
    (
        "thinking-only",
        "only `reasoning_content`",
        http(chat(None, reasoning_content=ANSWER)),
        "only_thinking",
        _TWICE,
        "",
    ),
    (
        "reasoning-only",
        "only `reasoning`, content is empty",
        http(chat(" ", reasoning=ANSWER)),
        "only_thinking",
        _TWICE,
        " ",
    ),
    (
        "thinking-cut",
        "only thinking, cut by `max_tokens`",
        http(chat(None, "length", reasoning_content=ANSWER)),
        "truncated",
        _TWICE,
        "",
    ),
    (
        "tool-call",
        "a tool call without content",
        http(chat(None, "tool_calls", tool_calls=[{"id": "1"}])),
        "no_answer",
        _TWICE,
        "",
    ),
    ("parts-image", "content with only an image", http(chat([_IMAGE])), "no_completion", _ALL),
    ("parts-empty", "content is an empty list", http(chat([])), "no_completion", _ALL),
    ("content-number", "content is a number", http(chat(4)), "no_completion", _ALL),
    ("content-object", "content is an object", http(chat({"score": 4})), "no_completion", _ALL),
    (
        "error-in-200",
        "an error with status 200",
        http(json.dumps({"error": {"message": "model is loading"}})),
        "no_completion",
        _ALL,
        "model is loading",
    ),
    (
        "choices-empty",
        "no choices",
        http('{"choices": []}'),
        "no_completion",
        _ALL,
        '{"choices": []}',
    ),
    ("list", "a list", http("[]"), "no_completion", _ALL, "[]"),
    ("null", "null", http("null"), "no_completion", _ALL, "null"),
    (
        "usage-word",
        "a word as a token count",
        http(
            json.dumps(
                {"choices": [{"message": {"content": ANSWER}}], "usage": {"prompt_tokens": "many"}}
            )
        ),
        "no_completion",
        _ALL,
    ),
    ("empty", "an empty body", http(""), "broken_body", _ALL),
    ("json-cut", "half a JSON body", http(_GOOD[:40]), "broken_body", _ALL),
    (
        "not-utf8",
        "JSON with bytes that are not UTF-8",
        http(b'{"choices": "\xff"}'),
        "broken_body",
        _ALL,
        '{"choices": "\ufffd"}',
    ),
    (
        "html",
        "a page with status 200",
        http("<html><script>x()</script><p>Log in</p></html>", "200 OK", "text/html"),
        "wrong_content_type",
        _ALL,
        "Log in",
    ),
    (
        "stream",
        "a stream of events",
        http("data: {}\n\ndata: [DONE]\n\n", "200 OK", "text/event-stream"),
        "wrong_content_type",
        _ALL,
        "data: {} data: [DONE]",
    ),
    ("no-type", "no content type", http(_GOOD, "200 OK", None), "wrong_content_type", _ALL),
]
MODES = {
    mode.name: mode
    for group, rows in (("HTTP", _FRAMES), ("Status", _STATUSES), ("Body", _BODIES))
    for mode in (WireMode(group, *row) for row in rows)
}


@dataclass
class WireServer:
    """A running server.

    Attributes:
        url: Address for a rater's ``base_url``.
        modes: The modes by name.
        requests: Number of requests by mode.
        head: Request line and headers of the last request.
        body: Body of the last request.
    """

    url: str = ""
    modes: Mapping[str, WireMode] = field(default_factory=lambda: MODES)
    requests: Counter[str] = field(default_factory=Counter)
    head: str = ""
    body: dict[str, Any] = field(default_factory=dict)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read a request, and send the bytes of the mode that its conversation names."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = re.findall(rb"(?i)content-length: *(\d+)", head)
            self.head = head.decode("latin-1")
            self.body = json.loads(await reader.readexactly(int(length)))
            prompt = self.body["messages"][0]["content"]
            (name,) = re.findall(r"mode <?([a-z0-9-]+)", prompt)[-1:] or ["good"]
            if "for how natural it is" not in prompt:
                name = "good"
            self.requests[name] += 1
            mode = self.modes.get(name)
            sent = mode.sent if mode else http(_GOOD)
            for number, packet in enumerate(sent.split(PAUSE)):
                await asyncio.sleep(0.1 if number else 0)
                writer.write(packet)
                await writer.drain()
            await asyncio.sleep(mode.pause if mode else 0)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()


@contextmanager
def serving(modes: Mapping[str, WireMode] | None = None) -> Iterator[WireServer]:
    """Run a server in its own thread until the block ends."""
    server = WireServer(modes=modes or MODES)
    loop, started = asyncio.new_event_loop(), threading.Event()

    async def start() -> None:
        listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        started.set()

    def serve() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def damaged(number: int, seed: int) -> dict[str, WireMode]:
    """Modes whose bytes are changed at random, with no expected outcome.

    Args:
        number: Number of modes.
        seed: Seed of the changes.
    """
    rng = random.Random(seed)
    whole = [mode.sent for mode in MODES.values() if mode.sent and not mode.pause]
    inserted = (
        b"\r\n",
        b"\0",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\xff",
    )
    modes = {}
    for name in (f"damaged-{n}" for n in range(number)):
        sent = rng.choice(whole)[:3_000]
        for _ in range(rng.randrange(1, 4)):
            # Mostly in the head.
            place = rng.randrange(max(1, len(sent) if rng.random() < 0.4 else min(len(sent), 160)))
            rest = place + rng.randrange(10)
            sent = sent[:place] + rng.choice([*inserted, rng.randbytes(4), b""]) + sent[rest:]
        modes[name] = WireMode("", name, "", sent, "", 0)
    return modes


def page() -> str:
    """The page of the docs with all modes."""
    lines = [
        "# Server faults",
        "",
        "How `regreason annotate` and `regreason explain` handle each way in which a server may",
        "answer. [Errors and retries](../guides/annotate.md#errors-and-retries) explains the",
        "states.",
        "",
        f"The numbers of requests are those with `retries: {RETRIES}` and with {RATE_LIMITED}",
        "retries after status 429; a run makes up to 30 of these. The tests run every line against",
        "a server that writes the bytes to a socket.",
    ]
    for group in dict.fromkeys(mode.group for mode in MODES.values()):
        lines += ["", f"## {group}", "", "| the server sends | state | requests | kept text |"]
        lines += ["| --- | --- | --- | --- |"]
        for mode in MODES.values():
            if mode.group == group:
                state = "the run stops" if mode.state == "stops" else f"`{mode.state}`"
                kept = (mode.stored or "").strip().replace("|", "\\|")
                kept = f"`{kept[:40]}{'...' if len(kept) > 40 else ''}`" if kept else ""
                lines.append(f"| {mode.about} | {state} | {mode.requests} | {kept} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
