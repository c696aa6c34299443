"""A local server with the OpenAI protocol, which answers at once and can be made to fail.

    with running(Server()) as server: ...      server.url, server.requests

Its answers depend on the requests alone, so two runs can be compared byte for byte. In a test it
runs in a thread; for a benchmark, `python openai_server.py PORT` runs it as a program.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
Handler = Callable[[web.Request, dict[str, Any]], Any]


@dataclass
class Server:
    """A running server.

    Attributes:
        fault: Function of the prompt and of the number of its requests. It returns the name of a
            fault in `FAULTS`, a text to answer with, or None for a good answer.
        delay: Seconds before every answer.
        usage: Numbers of tokens to report; None for `USAGE`.
        requests: Number of requests by prompt.
        bodies: Bodies of all requests, in their order.
        headers: Headers of the last request.
        arrivals: Time of each request, and the number of open requests then, including itself.
    """

    url: str = ""
    fault: Callable[[str, int], str | None] = lambda prompt, times: None
    delay: float = 0.0
    usage: dict[str, int] | None = None
    requests: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    keep: bool = True
    open_requests: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = body["messages"][0]["content"]
        self.requests[prompt] += 1
        if self.keep:
            self.bodies.append(body)
            self.headers = dict(request.headers)
        self.open_requests += 1
        self.arrivals.append((time.monotonic(), self.open_requests))
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            fault = self.fault(prompt, self.requests[prompt])
            if fault in FAULTS:
                return await FAULTS[fault](request, body)
            text = good_answer(prompt) if fault is None else fault
            return completion(body, text, usage=self.usage)
        finally:
            self.open_requests -= 1

    def routes(self) -> list[web.RouteDef]:
        """What the server answers to."""
        return [web.post("/v1/chat/completions", self.answer)]

    @property
    def total(self) -> int:
        """The number of requests until now."""
        return self.requests.total()

    @property
    def most_at_once(self) -> int:
        """The largest number of requests that were open at the same time."""
        return max(number for _, number in self.arrivals)


def good_answer(prompt: str) -> str:
    """A score and an explanation derived from the prompt, or a merged explanation if asked for."""
    digest = hashlib.sha256(prompt.encode("utf-8", "replace")).digest()
    asked = re.search(r"whole number from 1 to (\d+)", prompt)
    explanation = f"It reads {['well', 'badly', 'oddly'][digest[1] % 3]} for reason {digest[2]}."
    if asked is None:
        return json.dumps({"explanation": explanation})
    return json.dumps({"explanation": explanation, "score": 1 + digest[0] % int(asked[1])})


def completion(
    body: dict[str, Any],
    text: str | None,
    finish: str = "stop",
    refusal: str | None = None,
    usage: dict[str, int] | None = None,
) -> web.Response:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return web.json_response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
            "usage": USAGE if usage is None else usage,
        }
    )


def _status(status: int, **headers: str) -> Handler:
    async def handler(request: web.Request, body: dict[str, Any]) -> web.Response:
        # Some servers repeat the key in their message, as in "Incorrect API key provided: sk-...".
        message = f"went wrong with {request.headers.get('Authorization')}"
        return web.json_response({"error": {"message": message}}, status=status, headers=headers)

    return handler


def _text(text: str | None, **more: Any) -> Handler:
    async def handler(request: web.Request, body: dict[str, Any]) -> web.Response:
        return completion(body, text, **more)

    return handler


def _json(value: Any) -> Handler:
    return _text(json.dumps(value))


async def _stall(request: web.Request, body: dict[str, Any]) -> web.Response:
    await asyncio.sleep(3600)
    raise AssertionError


async def _cut(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b'{"id": "chatcmpl-1", "choi')
    assert request.transport is not None
    request.transport.abort()
    return response


async def _drop(request: web.Request, body: dict[str, Any]) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _drip(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


def _body(text: str) -> Handler:
    async def handler(request: web.Request, body: dict[str, Any]) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    return handler


async def _key_in_body(request: web.Request, body: dict[str, Any]) -> web.Response:
    return web.Response(text=f"x{request.headers.get('Authorization')}", content_type="text/plain")


async def _key_in_answer(request: web.Request, body: dict[str, Any]) -> web.Response:
    return completion(body, f"I was given {request.headers.get('Authorization')}.")


async def _long_error(request: web.Request, body: dict[str, Any]) -> web.Response:
    # Wherever this message is cut off, a part of the key would remain.
    message = "".join(f"{request.headers.get('Authorization')} " for _ in range(200))
    return web.json_response({"error": {"message": message}}, status=500)


async def _broken_body(request: web.Request, body: dict[str, Any]) -> web.Response:
    return web.Response(body=b'{"id": "chatcmpl-1", "choices": [', content_type="application/json")


async def _no_completion(request: web.Request, body: dict[str, Any]) -> web.Response:
    return web.json_response({"detail": "welcome"})


async def _html(request: web.Request, body: dict[str, Any]) -> web.Response:
    return web.Response(text="<html>Gateway</html>", content_type="text/html")


FAULTS: dict[str | None, Handler] = {
    **{str(status): _status(status) for status in (400, 401, 403, 404, 408, 429, 500, 502, 503)},
    "429-after": _status(429, **{"Retry-After": "0.2"}),
    "429-nan": _status(429, **{"Retry-After": "nan"}),
    "long-error": _long_error,
    "key-in-body": _key_in_body,
    "key-in-answer": _key_in_answer,
    "stall": _stall,
    "drop": _drop,
    "drip": _drip,
    "deep-body": _body("[" * 200_000),
    "endless-usage": _body(
        '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}'
    ),
    "negative-usage": _body(
        '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -5}}'
    ),
    "no-message": _body('{"choices": [null]}'),
    "cut": _cut,
    "broken-body": _broken_body,
    "no-completion": _no_completion,
    "html": _html,
    "score-0": _json({"explanation": "Fine.", "score": 0}),
    "score-9": _json({"explanation": "Fine.", "score": 9}),
    "score-five": _json({"explanation": "Fine.", "score": "five"}),
    "score-null": _json({"explanation": "Fine.", "score": None}),
    "no-explanation": _json({"explanation": " ", "score": 3}),
    "broken-json": _text('{"explanation": "Fine.", "sco'),
    "lone-surrogate": _body(
        '{"choices": [{"message": {"content": "Fine. \\ud800"}}], "usage": {"prompt_tokens": 5}}'
    ),
    "nothing": _text(""),
    "refusal": _text(None, refusal="I cannot help with that."),
    "filtered": _text("", finish="content_filter"),
    "truncated": _text('{"explanation": "It goes on and', finish="length"),
    "long": _text("word " * 200_000),
}


@contextmanager
def running(server: Server | None = None) -> Iterator[Server]:
    """Run a server in its own thread until the block ends."""
    server = server or Server()
    loop = asyncio.new_event_loop()
    started = threading.Event()
    runner: list[web.AppRunner] = []

    async def start() -> None:
        app = web.Application(client_max_size=1 << 24)
        app.add_routes(server.routes())
        runner.append(web.AppRunner(app, access_log=None, shutdown_timeout=0.1))
        await runner[0].setup()
        site = web.TCPSite(runner[0], "127.0.0.1", 0)
        await site.start()
        port = runner[0].addresses[0][1]
        server.url = f"http://127.0.0.1:{port}/v1"
        started.set()

    def serve() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(runner[0].cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def main() -> None:
    server = Server(keep=False)
    app = web.Application(client_max_size=1 << 24)
    app.add_routes(server.routes())
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
