"""The preflight: each rater answers one call before the others are made."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from helpers.asking import Workplace, start_regreason
from helpers.openai_server import FAULTS, USAGE, Server, good_answer, running

from regreason_plugin.annotate import client
from regreason_plugin.annotate.asked_again import AskedAgain
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

ONE: dict[str, Any] = {"prompts": ["scale-1-5"], "concurrency": 4, "retries": 0}
SCHEMA = {
    "type": "object",
    "properties": {
        "explanation": {"type": "string"},
        "score": {"type": "integer", "enum": [1, 2, 3, 4, 5]},
    },
    "required": ["explanation", "score"],
    "additionalProperties": False,
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.01)
    with running() as running_server:
        yield running_server


def test_check_asks_each_rater_once_and_the_run_does_not_ask_again(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raters = [{**ONE, "price": {"prompt": 1000, "answer": 1000}}, {**ONE, "temperature": 0.5}]
    place = Workplace(tmp_path / "w", server.url, 4, raters)
    assert main(["annotate", str(place.config), "--check"]) == 0
    assert server.total == 2
    stored = place.calls("rater, explanation, score")
    said = capfd.readouterr().out
    for rater, explanation, score in stored:
        (block,) = re.findall(rf"First answer of {rater} \(.*\n(?:  .*\n)+", said)
        assert f"  score: {score}\n  explanation: {explanation}\n  11 calls left" in block
    # A call costs (100 + 20) tokens x 1000 / 1,000,000 = 0.12; 11 are left.
    assert f"cost about {11 * 0.12:.2f}" in said
    assert "cost unknown" in said
    assert not place.ratings.exists()
    assert main(["annotate", str(place.config)]) == 0
    assert set(server.requests.values()) == {2}  # once for each rater
    assert server.total == 24
    assert "First answer" not in capfd.readouterr().err
    assert main(["annotate", str(place.config), "--check"]) == 0
    assert server.total == 24
    assert "from the store" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("fault", "state", "requests"),
    # After status 400, the four other ways to ask for JSON are tried.
    [("404", "not_found", 3), ("400", "bad_request", 3 + 4)],
)
def test_a_wrong_set_up_stops_the_run_with_the_servers_words_and_is_asked_again(
    fault: str,
    state: str,
    requests: int,
    server: Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server.fault = lambda prompt, times: fault
    place = Workplace(tmp_path / "w", server.url, 30, [ONE])
    for turn in (1, 2):
        assert main(["annotate", str(place.config)]) == 2
        # One request could be about its conversation; three are not.
        assert server.total == turn * requests
        (line,) = [one for one in capfd.readouterr().err.splitlines() if "regreason: " in one]
        assert state in line
        assert "went wrong with None" in line
        assert server.url in line
    server.fault = lambda prompt, times: None
    assert main(["annotate", str(place.config)]) == 0
    assert server.total == 2 * requests + 90
    assert len(place.rows()) == 90


def form(body: dict[str, Any]) -> str:
    """The way in which a request asks for JSON, read from its body."""
    if "tools" in body:
        (tool,) = body["tools"]
        assert body["tool_choice"]["function"]["name"] == tool["function"]["name"] == "answer"
        assert tool["function"]["parameters"] == SCHEMA
        return "tool"
    if "guided_json" in body:
        assert body["guided_json"] == SCHEMA
        return "guided_json"
    if "response_format" in body:
        return str(body["response_format"]["type"])
    return "none"


async def tool_call(request: web.Request, body: dict[str, Any]) -> web.Response:
    """A server that answers with prose and a call of the function; the call has the score."""
    arguments = good_answer(body["messages"][0]["content"])
    calls = [{"id": "1", "function": {"name": "answer", "arguments": arguments}}]
    message = {"role": "assistant", "content": "I call the function.", "tool_calls": calls}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    return web.json_response({"choices": [choice], "model": "m", "usage": USAGE})


FORMS = ["json_schema", "guided_json", "tool", "json_object", "none"]


@pytest.mark.parametrize("known", FORMS)
def test_a_form_that_the_server_accepts_is_named_and_works(
    known: str,
    server: Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FAULTS, "tool-call", tool_call)

    def fault(prompt: str, times: int) -> str | None:
        if form(server.bodies[-1]) != known:
            return "400"
        return "tool-call" if known == "tool" else None

    server.fault = fault
    own = "none" if known == "json_schema" else "json_schema"
    place = Workplace(tmp_path / "w", server.url, 3, [{**ONE, "structured": own}])
    for _ in range(2):
        assert main(["annotate", str(place.config)]) == 2
        (line,) = [one for one in capfd.readouterr().err.splitlines() if "regreason: " in one]
        named = f"refuses `structured: {own}` and answers with `structured: {known}`; set it"
        assert named in line
    # Two times three questions; three other forms twice, and the one that works once.
    assert server.total == 2 * 3 + 2 * 3 + 1
    rater = {**place.keys["raters"][0], "structured": known}
    assert main(["annotate", str(place.write(raters=[rater]))]) == 0
    # The answer with the other form is in the store.
    assert server.total == 13 + 8
    expected = {key[:4]: json.loads(good_answer(one)) for key, one in place.prompts().items()}
    stored = place.calls("conversation, rater, axis, prompt, score, explanation, state")
    scores = {
        row[:4]: dict(zip(("score", "explanation"), row[4:6], strict=True))
        for row in stored
        if row[6] == "ok"
    }
    assert scores == expected
    assert len(scores) == 9


def test_several_forms_are_named_the_strictest_first(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda prompt, times: (
        "400" if form(server.bodies[-1]) in {"json_schema", "tool"} else None
    )
    # A call costs at most a few thousandths; the answers with other forms are paid.
    price = {"prompt": 1, "answer": 1}
    place = Workplace(tmp_path / "w", server.url, 3, [{**ONE, "price": price}])
    assert main(["annotate", str(place.config), "--check", "--budget", "1"]) == 2
    names = [f"`structured: {name}`" for name in ("guided_json", "json_object", "none")]
    assert f"answers with {' or '.join(names)}; set it" in capfd.readouterr().err
    assert sum(cost for (cost, *_) in place.calls("cost, state, axis")) == pytest.approx(
        3 * 120 / 1e6
    )
    # A mended server is asked again with the form of the config.
    server.fault = lambda prompt, times: None
    assert main(["annotate", str(place.config)]) == 0
    assert len(place.rows()) == 9
    assert place.about()["calls"] == {"ok": 9}


def test_one_refused_conversation_does_not_stop_the_run(server: Server, tmp_path: Path) -> None:
    place = Workplace(tmp_path / "w", server.url, 3, [ONE])
    (first, *_) = place.prompts().values()
    server.fault = lambda prompt, times: "400" if prompt == first else None
    assert main(["annotate", str(place.config)]) == 0
    assert server.requests[first] == 1
    assert len(place.rows()) == 8
    # The rater has answered, so the request is refused because of its conversation.
    assert main(["annotate", str(place.config)]) == 0
    assert server.total == 9


def test_a_server_that_starts_later_is_asked_again(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    place = Workplace(tmp_path / "w", url, 3, [ONE])
    assert main(["annotate", str(place.config), "--check"]) == 2
    assert place.calls("state, attempts, axis")[0][:2] == ("unreachable", 1)
    with running() as server:
        rater = {**place.keys["raters"][0], "base_url": server.url}
        assert main(["annotate", str(place.write(raters=[rater]))]) == 0
        assert server.total == 9


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_which_failed_calls_are_made_again(temperature: float) -> None:
    rater = ServerRater(name="r", model="m", base_url="http://x/v1", temperature=temperature)

    def again(state: str, answered: bool = True, **which: Any) -> bool:
        return AskedAgain(**which).includes(state, rater, answered=answered)

    assert again("unreachable")
    assert not again("not_found")
    assert again("not_found", answered=False)
    assert not again("stalled", answered=False)
    assert again("stalled", failed=True)
    # The same request at temperature 0 gives the same answer.
    assert again("truncated", failed=True) == (temperature > 0)
    assert again("truncated", states=frozenset({"truncated"}))
    assert not again("refused", states=frozenset({"truncated"}))
    assert not again("ok", failed=True, states=frozenset({"ok"}))


def test_only_the_named_states_are_asked_again(server: Server, tmp_path: Path) -> None:
    place = Workplace(tmp_path / "w", server.url, 4, [ONE])
    server.fault = lambda prompt, times: (
        "truncated" if "how natural" in prompt else "500" if "on topic" in prompt else None
    )
    assert main(["annotate", str(place.config)]) == 0
    states = {row[1] for row in place.calls()}
    server.fault = lambda prompt, times: None
    before = server.total
    assert main(["annotate", str(place.config), "--retry-failed", "truncated"]) == 0
    assert server.total - before == 4
    assert {row[1] for row in place.calls()} == states - {"truncated"}


def test_a_larger_limit_keeps_the_complete_answers(server: Server, tmp_path: Path) -> None:
    place = Workplace(tmp_path / "w", server.url, 4, [ONE])
    server.fault = lambda prompt, times: "truncated" if "how natural" in prompt else None
    assert main(["annotate", str(place.config)]) == 0
    assert server.total == 8 + 2 * 4
    server.fault = lambda prompt, times: None
    tokens = place.about()["tokens"]
    rater = place.keys["raters"][0]
    before = server.total
    assert main(["annotate", str(place.write(raters=[{**rater, "max_tokens": 900}]))]) == 0
    assert server.total - before == 4
    assert len(place.rows()) == 12
    # A copied answer is not paid again.
    assert place.about()["tokens"]["prompt"] == tokens["prompt"] + 4 * 100
    # A smaller limit proves nothing.
    assert main(["annotate", str(place.write(raters=[{**rater, "max_tokens": 100}]))]) == 0
    assert server.total - before == 4 + 12


def test_sigterm_ends_a_run_like_ctrl_c(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(Server(delay=0.1)) as server:
        place = Workplace(tmp_path / "w", server.url, 20, [ONE])
        process = start_regreason("annotate", place.config, log=log)
        end = time.monotonic() + 60
        while server.total < 6:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait() == 130, log.read_text()
    assert "stopped; all answers so far are in" in log.read_text()
    assert place.leftovers() == []
    assert {row[1] for row in place.calls()} == {"ok"}
