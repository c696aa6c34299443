"""The preflight: each rater answers one call before the others are made."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.asking import Workplace, start_regreason
from helpers.openai_server import Server, running

from regreason_plugin.annotate import client
from regreason_plugin.annotate.asked_again import AskedAgain
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

ONE: dict[str, Any] = {"prompts": ["scale-1-5"], "concurrency": 4, "retries": 0}


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
    ("fault", "state", "requests"), [("404", "not_found", 3), ("400", "bad_request", 3)]
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
