"""Faults of a server: `regreason annotate` goes on, names the fault, and shows no key."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import ssl
import subprocess
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.asking import Workplace
from helpers.openai_server import FAULTS, Server, running

from regreason_plugin.annotate import client
from regreason_plugin.annotate.store import Store
from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

KEY = "sk-marker-8d1f2a7703"
NATURAL = "for how natural it is"
ONE = {"prompts": ["scale-1-5"], "retries": 2, "timeout": 30, "concurrency": 4}

# By fault: its state in the store, and the number of requests. A fault that may pass takes three
# requests (one and two retries), an answer that cannot be used two, an error in the request one.
STATES = {
    "400": ("bad_request", 1),
    "403": ("forbidden", 1),
    "404": ("not_found", 1),
    "408": ("request_timeout", 3),
    "500": ("server_error", 3),
    "502": ("server_error", 3),
    "503": ("unavailable", 3),
    "long-error": ("server_error", 3),
    "stall": ("stalled", 3),
    "drip": ("stalled", 3),
    "cut": ("connection_lost", 3),
    "drop": ("connection_lost", 3),
    "broken-body": ("broken_body", 3),
    "deep-body": ("broken_body", 3),
    "no-completion": ("no_completion", 3),
    "no-message": ("no_completion", 3),
    "endless-usage": ("no_completion", 3),
    "negative-usage": ("no_completion", 3),
    "html": ("wrong_content_type", 3),
    "key-in-body": ("wrong_content_type", 3),
    "key-in-answer": ("broken_json", 2),
    "score-0": ("score_out_of_range", 2),
    "score-9": ("score_out_of_range", 2),
    "score-five": ("score_not_a_number", 2),
    "score-null": ("score_missing", 2),
    "no-explanation": ("explanation_empty", 2),
    "broken-json": ("broken_json", 2),
    "lone-surrogate": ("broken_json", 2),
    "nothing": ("no_answer", 2),
    "refusal": ("refused", 2),
    "filtered": ("refused", 2),
    "truncated": ("truncated", 2),
    "long": ("answer_too_long", 2),
}


# Seconds; long enough for the two calls that succeed meanwhile.
TIMEOUTS = {"stall": 1.0, "drip": 1.0}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.01)
    monkeypatch.setenv("REGREASON_TEST_KEY", KEY)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as running_server:
        yield running_server


def no_longer(prompt: str, times: int) -> None:
    return None


def test_every_fault_has_its_case() -> None:
    assert set(FAULTS) == {*STATES, "401", "429", "429-after", "429-nan"}


@pytest.mark.parametrize("fault", STATES)
def test_a_fault_is_survived_and_told(
    fault: str, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state, requests = STATES[fault]
    server.fault = lambda prompt, times: fault if NATURAL in prompt else None
    rater = {**ONE, "api_key_env": "REGREASON_TEST_KEY", "timeout": TIMEOUTS.get(fault, 30)}
    place = Workplace(tmp_path / "w", server.url, 1, [rater])
    assert main(["annotate", str(place.config)]) == 0

    good = [("comprehensiveness", "ok", 1), ("on_topic", "ok", 1)]
    assert place.calls() == sorted([("naturalness", state, requests), *good])
    assert sorted(server.requests.values()) == sorted([requests, 1, 1])
    assert server.headers["Authorization"] == f"Bearer {KEY}"
    assert [row["axis"] for row in place.rows()] == ["comprehensiveness", "on_topic"]
    about = place.about()
    assert about["calls"] == {"ok": 2, state: 1}
    assert sum(about["dropped"].values()) == 1
    said = capfd.readouterr()
    assert f"1 {state}" in said.out
    assert "1 left out" in said.out
    assert "--retry-failed" in said.out

    # No call is made again without --retry-failed.
    before = server.total
    assert main(["annotate", str(place.config)]) == 0
    assert server.total == before
    server.fault = no_longer
    assert main(["annotate", str(place.config), "--retry-failed", state]) == 0
    assert server.total == before + 1
    assert place.calls() == sorted([("naturalness", "ok", requests + 1), *good])
    assert len(place.rows()) == 3

    said_since = capfd.readouterr()
    for text in (said.out, said.err, said_since.out, said_since.err):
        assert KEY not in text
    for path in place.folder.iterdir():
        assert KEY[3:].encode() not in path.read_bytes(), path


@pytest.mark.parametrize("fault", [one for one, (_, requests) in STATES.items() if requests > 1])
def test_a_fault_that_passes_leaves_no_trace_but_its_attempts(
    fault: str, server: Server, tmp_path: Path
) -> None:
    server.fault = lambda prompt, times: fault if NATURAL in prompt and times == 1 else None
    rater = {**ONE, "timeout": TIMEOUTS.get(fault, 30)}
    place = Workplace(tmp_path / "w", server.url, 1, [rater])
    assert main(["annotate", str(place.config)]) == 0
    assert place.calls("axis, state, attempts, answer IS NULL") == [
        ("comprehensiveness", "ok", 1, 1),
        ("naturalness", "ok", 2, 1),
        ("on_topic", "ok", 1, 1),
    ]
    assert len(place.rows()) == 3
    assert place.about()["dropped"] == {}


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.mark.parametrize("case", ["unreachable", "unknown_host", "plain", "certificate"])
def test_an_address_without_a_server(
    case: str, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state, words = {
        "unreachable": ("unreachable", "Connect call failed"),
        "unknown_host": ("unknown_host", ""),
        "plain": ("tls_error", "SSL"),
        "certificate": ("tls_error", "self-signed certificate"),
    }[case]
    url = {
        "unreachable": f"http://127.0.0.1:{closed_port()}/v1",
        "unknown_host": "http://no-such-host.invalid/v1",
        "plain": server.url.replace("http:", "https:"),
        "certificate": "",
    }[case]
    with self_signed(tmp_path) if case == "certificate" else nullcontext(url) as address:
        place = Workplace(tmp_path / "w", address, 1, [ONE])
        assert main(["annotate", str(place.config)]) == 2
    rows = place.calls("state, attempts, answer")
    # The preflight's call is the only one.
    assert [row[:2] for row in rows] == [(state, 3)]
    for row in rows:
        assert row[2]
        assert words in row[2]
    assert not place.ratings.exists()
    (line,) = error_lines(capfd.readouterr().err)
    assert state in line
    assert not server.requests


@contextmanager
def self_signed(folder: Path) -> Iterator[str]:
    """The address of a port that speaks TLS with a certificate that nobody has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    pem = folder / "server.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    command = [*request.split(), "-subj", "/CN=localhost", "-keyout", pem, "-out", f"{pem}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{pem}.crt", pem)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with suppress(OSError), connection:
                        context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=accept, daemon=True).start()
        yield f"https://localhost:{listening.getsockname()[1]}/v1"


def error_lines(text: str) -> list[str]:
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("regreason: ")]


def test_a_refused_key_ends_it_at_once(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda prompt, times: "401"
    server.delay = 0.02
    rater = {**ONE, "api_key_env": "REGREASON_TEST_KEY"}
    place = Workplace(tmp_path / "w", server.url, 10, [rater])
    assert main(["annotate", str(place.config)]) == 2
    said = capfd.readouterr()
    (line,) = error_lines(said.err)
    assert "REGREASON_TEST_KEY" in line
    assert KEY not in said.err + said.out
    assert 1 <= server.total <= 4
    assert not place.ratings.exists()
    # Checked before the store is read, because reading it leaves files there.
    assert place.leftovers() == []
    assert place.calls() == []


def test_with_the_right_key_it_goes_on(server: Server, tmp_path: Path) -> None:
    place = Workplace(tmp_path / "w", server.url, 4, [ONE])
    server.fault = lambda prompt, times: "401" if server.total > 6 else None
    assert main(["annotate", str(place.config)]) == 2
    answered = {row[0] for row in place.calls("prompt || axis || conversation, state, attempts")}
    assert answered
    server.fault = no_longer
    assert main(["annotate", str(place.config)]) == 0
    assert len(place.rows()) == 12
    # Only the refused call and those under way at the same time are repeated.
    assert server.total - 12 <= 4


@pytest.mark.parametrize(
    ("value", "says"), [(None, "is not set"), (" ", "is not set"), ("sk-\u201cx\u201d", "ASCII")]
)
def test_a_key_that_cannot_be_one(
    value: str | None,
    says: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("REGREASON_TEST_KEY")
    if value is not None:
        monkeypatch.setenv("REGREASON_TEST_KEY", value)
    place = Workplace(tmp_path / "w", server.url, 1, [{**ONE, "api_key_env": "REGREASON_TEST_KEY"}])
    assert main(["annotate", str(place.config)]) == 2
    (line,) = error_lines(capfd.readouterr().err)
    assert "REGREASON_TEST_KEY" in line
    assert says in line
    assert server.total == 0


def test_a_key_read_from_a_file_may_end_on_a_newline(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGREASON_TEST_KEY", f"{KEY}\n")
    place = Workplace(tmp_path / "w", server.url, 1, [{**ONE, "api_key_env": "REGREASON_TEST_KEY"}])
    assert main(["annotate", str(place.config)]) == 0
    assert server.headers["Authorization"] == f"Bearer {KEY}"


def test_what_the_environment_holds_for_another_server_is_not_sent(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Gateway: {KEY}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    place = Workplace(tmp_path / "w", server.url, 1, [ONE])
    assert main(["annotate", str(place.config)]) == 0
    assert "Authorization" not in server.headers
    assert KEY not in json.dumps(server.headers)


@pytest.mark.parametrize("fault", ["429", "429-after", "429-nan"])
def test_a_server_that_asks_for_less_gets_less(fault: str, server: Server, tmp_path: Path) -> None:
    server.delay = 0.02
    server.fault = lambda prompt, times: fault if server.open_requests > 3 else None
    place = Workplace(tmp_path / "w", server.url, 30, [{**ONE, "concurrency": 16}])
    assert main(["annotate", str(place.config)]) == 0
    assert {row[1] for row in place.calls()} == {"ok"}
    assert len(place.rows()) == 90
    assert server.most_at_once == 16
    refused = server.total - 90
    # Without slowing down, about four of five requests would be refused, which is hundreds.
    assert 0 < refused < 90
    if fault == "429-after":
        arrivals = server.arrivals[1:]  # without the preflight's call
        times = [when for when, _ in arrivals]
        assert times[15] - times[0] < 0.15
        assert times[16] - times[15] > 0.12
        # After the pause, at most half as many calls run at once.
        assert max(number for when, number in arrivals[16:30]) <= 8


def test_a_server_that_only_ever_asks_for_less(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_RATE_LIMITED_AT_MOST", 5)
    server.fault = lambda prompt, times: "429" if NATURAL in prompt else None
    place = Workplace(tmp_path / "w", server.url, 1, [ONE])
    assert main(["annotate", str(place.config)]) == 0
    assert ("naturalness", "rate_limited", 6) in place.calls()


def test_too_few_usable_ratings_leave_a_conversation_out(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing: dict[str, str] = {}

    def fault(prompt: str, times: int) -> str | None:
        return failing.get(prompt)

    server.fault = fault
    raters = [
        {**ONE, "prompts": ["scale-1-4", "scale-1-5"]},
        {**ONE, "prompts": ["scale-1-5-examples"]},
    ]
    place = Workplace(tmp_path / "w", server.url, 4, raters, minimum=2)
    prompts = place.prompts()
    conversations = sorted({key[0] for key in prompts})
    # Of each axis's three scores, conversation n (from 0) loses n.
    styles = ["scale-1-4", "scale-1-5", "scale-1-5-examples"]
    for number, conversation in enumerate(conversations):
        for key, prompt in prompts.items():
            if key[0] == conversation and key[3] in styles[:number]:
                failing[prompt] = "500"
    assert main(["annotate", str(place.config)]) == 0
    assert len(place.rows()) == 2 * 3
    usable = [sum("score" in one for one in row["ratings"]) for row in place.rows()]
    assert sorted(usable) == [2, 2, 2, 3, 3, 3]
    assert list(place.about()["dropped"].values()) == [6]
    assert place.about()["calls"] == {"ok": 18, "server_error": 18}
    assert "6 left out" in capfd.readouterr().out


def test_a_hundred_failures_in_a_row_end_it(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda prompt, times: "500"
    place = Workplace(tmp_path / "w", server.url, 50, [{**ONE, "retries": 0}])
    assert main(["annotate", str(place.config)]) == 2
    (line,) = error_lines(capfd.readouterr().err)
    assert line.startswith("regreason: 100 calls in a row")
    assert "rater-1" in line
    assert "server_error" in line
    assert not place.ratings.exists()
    assert 100 <= server.total <= 104
    assert {row[1:] for row in place.calls()} == {("server_error", 1)}
    server.fault = no_longer
    assert main(["annotate", str(place.config), "--retry-failed"]) == 0
    assert len(place.rows()) == 150


def test_a_good_answer_now_and_then_keeps_it_going(server: Server, tmp_path: Path) -> None:
    server.fault = lambda prompt, times: None if server.total % 50 == 0 else "500"
    place = Workplace(tmp_path / "w", server.url, 50, [{**ONE, "retries": 0}])
    assert main(["annotate", str(place.config)]) == 0
    assert server.total == 150
    assert len(place.rows()) == 3


def test_a_bug_shows_its_traceback_without_the_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(content_type: str, body: bytes) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(client, "read_reply", broken)
    place = Workplace(tmp_path / "w", server.url, 2, [{**ONE, "api_key_env": "REGREASON_TEST_KEY"}])
    with pytest.raises(ZeroDivisionError) as caught:
        main(["annotate", str(place.config)])
    assert KEY not in "".join(traceback.format_exception(caught.value))
    # All claims are given back. Checked before the store is read, because reading leaves files.
    assert place.leftovers() == []
    assert place.calls() == []


@pytest.mark.parametrize("fault", ["500", "key-in-body", "key-in-answer", "long-error"])
def test_a_header_from_the_environment_is_not_repeated(
    fault: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REGREASON_TEST_HEADER", f"Token {KEY}")
    server.fault = lambda prompt, times: fault if NATURAL in prompt else None
    headers = {"Authorization": {"env": "REGREASON_TEST_HEADER"}, "X-Team": "research"}
    place = Workplace(tmp_path / "w", server.url, 1, [{**ONE, "headers": headers}])
    assert main(["annotate", str(place.config)]) == 0
    assert server.headers["Authorization"] == f"Token {KEY}"
    assert {name.lower(): value for name, value in server.headers.items()}["x-team"] == "research"
    said = capfd.readouterr()
    assert KEY not in said.out + said.err
    for path in place.folder.iterdir():
        assert KEY[3:].encode() not in path.read_bytes(), path
    # Headers are not part of a call's key, so other headers ask nothing again.
    before = server.total
    place.write(raters=[{**place.keys["raters"][0], "headers": {}}])
    assert main(["annotate", str(place.config)]) == 0
    assert server.total == before


@pytest.mark.parametrize(
    "line",
    [
        {"api_key_env": KEY},
        {"api_key": KEY},
        {"api_key_env": [KEY]},
        {"request": {"api_key": KEY}},
        {"headers": {"Authorization": KEY}},
        {"headers": {"x-api-key": KEY}},
        {"headers": {"Authorization": {"env": KEY}}},
        {"headers": {"X-Team": f"{KEY}\u201d"}},
        {"base_url": f"http://user:{KEY}@localhost/v1"},
        {"base_url": f"http://localhost/v1?key={KEY}"},
    ],
)
def test_a_key_in_the_config_is_not_repeated(
    line: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", "http://localhost/v1", 1, [{**ONE, **line}])
    assert main(["annotate", str(place.config)]) == 2
    said = capfd.readouterr()
    assert KEY not in said.err + said.out
    assert next(iter(line)) in said.err
    assert not place.store.exists()


def test_a_key_in_a_broken_config_is_not_repeated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", "http://localhost/v1", 1, [ONE])
    place.config.write_text(f"raters:\n  - api_key_env: {KEY}: x\n")
    assert main(["annotate", str(place.config)]) == 2
    said = capfd.readouterr().err
    assert KEY not in said
    assert "line 2" in said


def test_a_store_that_is_something_else_is_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", "http://localhost/v1", 1, [ONE])
    with sqlite3.connect(place.store) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    for content in (place.store.read_bytes(), b"no database at all, but long enough" * 100):
        place.store.write_bytes(content)
        assert main(["annotate", str(place.config)]) == 2
        assert place.store.read_bytes() == content
        (line,) = error_lines(capfd.readouterr().err)
        assert "ratings.calls.db" in line
    place.store.unlink()
    place.store.mkdir()
    assert main(["annotate", str(place.config)]) == 2
    assert len(error_lines(capfd.readouterr().err)) == 1
    with pytest.raises(Exception, match="store"):
        Store(place.config / "x.db")


def test_with_a_budget_tokens_must_be_counted(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rater = {**ONE, "price": {"prompt": 1, "answer": 1}}
    place = Workplace(tmp_path / "w", server.url, 3, [rater])
    server.usage = {}
    assert main(["annotate", str(place.config), "--budget", "1"]) == 2
    (line,) = error_lines(capfd.readouterr().err)
    assert "--budget" in line
    assert 1 <= server.total <= 4
    assert main(["annotate", str(place.config)]) == 0
