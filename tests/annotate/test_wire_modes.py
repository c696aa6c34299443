"""Every way in which a server may answer, through the real command, from a raw socket."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from helpers.asking import Workplace
from helpers.wire_modes import (
    ANSWER,
    KEY,
    MODES,
    PAGE,
    RATE_LIMITED,
    RETRIES,
    WireServer,
    damaged,
    page,
    serving,
)
from rich.console import Console

from regreason_plugin.annotate import client
from regreason_plugin.annotate.faults import Fault, status_fault
from regreason_plugin.annotate.lanes import Tally
from regreason_plugin.annotate.pace import Waiting
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.cli import main
from regreason_plugin.cli.rater_progress import ConsoleWatcher, _line
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import dumps

pytestmark = pytest.mark.integration

STOPS = [mode.name for mode in MODES.values() if mode.state == "stops"]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(client, "_RATE_LIMITED_AT_MOST", RATE_LIMITED)
    monkeypatch.setenv("REGREASON_TEST_KEY", KEY)


@pytest.fixture
def server() -> Iterator[WireServer]:
    with serving() as running:
        yield running


def workplace(folder: Path, server: WireServer, modes: Iterable[str]) -> Workplace:
    """A folder with one conversation for each mode, which the mode answers on one axis."""
    rater = {
        "prompts": ["scale-1-5"],
        "retries": RETRIES,
        "timeout": 2,
        "concurrency": 16,
        "api_key_env": "REGREASON_TEST_KEY",
    }
    place = Workplace(folder, server.url, 1, [rater])
    lines = []
    for name in modes:
        turns = [
            {"role": "user", "content": "Is it far?"},
            {"role": "assistant", "content": f"mode {name}"},
        ]
        talk = {"id": name, "dataset": "coqa", "group": name, "conversation": turns}
        lines.append(dumps(talk) + "\n")
    (folder / "conversations.jsonl").write_text("".join(lines), encoding="utf-8")
    return place


def test_there_are_many_modes_of_every_kind() -> None:
    assert len(MODES) >= 100
    assert len({mode.sent for mode in MODES.values()}) >= len(MODES) - 1


def test_every_mode_has_its_outcome(
    server: WireServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    modes = {name: mode for name, mode in MODES.items() if name not in STOPS}
    place = workplace(tmp_path / "w", server, modes)
    assert main(["annotate", str(place.config)]) == 0
    calls = {
        name: (state, attempts, answer if explanation is None else explanation)
        for axis, name, state, attempts, answer, explanation in place.calls(
            "axis, id, state, attempts, answer, explanation"
        )
        if axis == "naturalness"
    }
    expected = {
        # Words of the libraries about broken HTTP are theirs, and not compared.
        name: (mode.state, mode.requests, calls[name][2] if mode.stored is None else mode.stored)
        for name, mode in modes.items()
    }
    assert calls == expected
    assert {name: server.requests[name] for name in modes} == {
        name: mode.requests for name, mode in modes.items()
    }
    assert {row[1] for row in place.calls("axis, state, id") if row[0] != "naturalness"} == {"ok"}
    said = capfd.readouterr()
    for text in (said.out, said.err):
        assert KEY not in text
        assert "\x1b[31m" not in text
        assert "\u202e" not in text
    for path in place.folder.iterdir():
        assert KEY[3:].encode() not in path.read_bytes(), path


@pytest.mark.parametrize("name", STOPS)
def test_a_mode_that_stops_the_run_says_why(
    name: str, server: WireServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = workplace(tmp_path / "w", server, ["good", name])
    place.write(raters=[{**place.keys["raters"][0], "concurrency": 1}])
    assert main(["annotate", str(place.config)]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("regreason: ")]
    assert ("quota" in line) == (name != "401")
    assert server.url in line
    assert server.requests[name] == 1
    # The answers before stay.
    assert {row[1] for row in place.calls("id, state, axis")} == {"ok"}
    assert not place.ratings.exists()


def test_no_damage_to_an_answer_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_RATE_LIMITED_AT_MOST", 0)
    modes = damaged(400, seed=1)

    async def calls(server: WireServer) -> Counter[str]:
        states: Counter[str] = Counter()
        asked = client.Server(rater(server, retries=0, timeout=2.0, concurrency=16))

        async def call(mode: str) -> None:
            try:
                states[await outcome(asked, mode)] += 1
            except UserError:
                states["stops"] += 1

        await asyncio.gather(*map(call, modes))
        await asked.close()
        return states

    with serving(modes) as server:
        states = asyncio.run(calls(server))
    assert states.total() == 400
    # A request on a connection that the server ends meanwhile is lost.
    assert 390 <= server.requests.total() <= 400
    assert states["bad_http"] > 100
    assert len(states) > 5


def test_a_wrong_cookie_does_not_spoil_the_next_calls(server: WireServer) -> None:
    async def calls() -> None:
        asked = client.Server(rater(server))
        assert [await outcome(asked, "cookie") for _ in range(3)] == ["ok"] * 3
        await asked.close()

    asyncio.run(calls())
    assert "\r\ncookie:" not in server.head.lower()


def test_an_error_of_ours_is_no_fault(server: WireServer) -> None:
    async def call() -> None:
        asked = client.Server(rater(server))
        try:
            await asked.ask("\ud800", {})
        finally:
            await asked.close()

    # Like most errors that broken HTTP can raise, this one is a ValueError.
    with pytest.raises(UnicodeEncodeError):
        asyncio.run(call())
    assert not server.requests


def rater(server: WireServer, query: str = "", **keys: Any) -> ServerRater:
    """A rater behind the server."""
    defaults: dict[str, Any] = {"name": "a", "model": "m", "timeout": 30}
    return ServerRater(base_url=server.url + query, **(defaults | keys))


async def ask(asked: client.Server, mode: str) -> Any:
    """The reply to one call, or its fault."""
    try:
        return await asked.ask(f"for how natural it is mode {mode}", {"type": "object"})
    except Fault as fault:
        return fault


async def outcome(asked: client.Server, mode: str) -> str:
    """The state of a call."""
    done = await ask(asked, mode)
    return done.kind if isinstance(done, Fault) else done[0].stop or "ok"


def test_a_server_is_waited_for_until_it_replies(server: WireServer) -> None:
    async def calls() -> None:
        asked = client.Server(rater(server, retries=1))
        assert asked.waiting is None
        before = time.monotonic()
        await ask(asked, "503")
        waiting = asked.waiting
        assert waiting is not None
        assert before <= waiting.since <= time.monotonic()
        assert waiting.why == "unavailable (503 loading model)"
        await ask(asked, "429")
        assert asked.waiting is not None
        assert asked.waiting.since == waiting.since
        assert asked.waiting.why.startswith("rate_limited")
        reply, attempts = await ask(asked, "thinking-beside")
        assert asked.waiting is None
        assert attempts == 1
        assert reply.served == "served-model"
        # The message's thinking holds a draft of an answer.
        assert reply.text == ANSWER
        await asked.close()

    asyncio.run(calls())


def test_the_display_names_the_server_that_is_waited_for() -> None:
    now = time.monotonic()
    why = "rate_limited (429 slow [/b] down [key])"
    tallies = [
        Tally("busy", total=9, waiting=lambda: Waiting(now - 42, why)),
        Tally("brief", total=9, waiting=lambda: Waiting(now - 1, why)),
        Tally("done", total=9, waiting=lambda: Waiting(now - 42, why), ended=True),
        Tally("fine", total=9),
    ]
    stream = StringIO()
    watcher = ConsoleWatcher(Console(file=stream, width=200), None)
    with watcher.asking("Rating", tallies):
        assert _line(tallies, 10.0).endswith(f"; waiting for busy for 42 s: {why}")
    said = stream.getvalue()
    assert f"waiting for busy for 42 s: {why}" in said
    assert said.count("waiting for") == 1


RESET, LEFT = "x-ratelimit-reset-", "x-ratelimit-remaining-"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "1e9"}, 300),
        ({"Retry-After": "inf"}, 300),
        ({"Retry-After": "-7"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
        ({"Retry-After": "Thu, 01 Jan 2099 00:00:00 GMT"}, 300),
        ({"Retry-After": "0", "retry-after-ms": "2500"}, 2.5),
        ({f"{RESET}requests": "6m0s", f"{LEFT}requests": "3"}, None),
        ({f"{RESET}requests": "2m3.5s", f"{LEFT}requests": "0"}, 123.5),
        ({f"{RESET}tokens": "1h2m", f"{LEFT}tokens": "0"}, 300),
        ({f"{RESET}tokens": "120ms", f"{LEFT}tokens": "0"}, 0.12),
        ({f"{RESET}tokens": "soon", f"{LEFT}tokens": "0"}, None),
    ],
)
def test_the_time_that_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    wait = status_fault(httpx2.Response(429, headers=headers, content=b"")).wait
    assert wait == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("mode", ["429-zero", "429-negative", "429-nan", "429-past", "429-tiny"])
def test_a_time_that_is_not_ahead_is_not_believed(
    mode: str, server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.02)

    async def calls() -> None:
        asked = client.Server(rater(server))
        started = time.monotonic()
        fault = await ask(asked, mode)
        # Half of each backoff at least: 0.02, 0.04 and 0.08 seconds.
        assert time.monotonic() - started >= 0.07
        assert (fault.kind, fault.attempts) == ("rate_limited", 1 + RATE_LIMITED)
        await asked.close()

    asyncio.run(calls())


def test_query_headers_and_fields_are_sent(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGREASON_TEST_HEADER", "Token wire-header-marker")
    keys: dict[str, Any] = {
        "request": {"max_tokens": None, "max_completion_tokens": 9, "stop": ["END"]},
        "headers": {"api-key": {"env": "REGREASON_TEST_HEADER"}, "X-Team": "research"},
        "temperature": None,
        "structured": "none",
    }

    async def calls() -> None:
        asked = client.Server(rater(server, "?api-version=2024-10-21", **keys))
        await ask(asked, "bom")
        await asked.close()

    asyncio.run(calls())
    assert server.head.startswith("POST /v1/chat/completions?api-version=2024-10-21 HTTP/1.1")
    head = server.head.lower()
    assert "\r\napi-key: token wire-header-marker\r\n" in head
    assert "\r\nx-team: research\r\n" in head
    # Without a key there is none, because some servers refuse a wrong one.
    assert "authorization:" not in head
    del server.body["messages"]
    assert server.body == {"model": "m", "max_completion_tokens": 9, "stop": ["END"]}


def test_the_page_of_the_docs_is_made_from_the_modes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
