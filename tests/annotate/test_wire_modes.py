"""Every way in which a server may answer, through the real command, from a raw socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from helpers.asking import Workplace
from helpers.wire_modes import KEY, MODES, PAGE, RATE_LIMITED, RETRIES, WireServer, page, serving

from regreason_plugin.annotate import client
from regreason_plugin.cli import main
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


def test_the_page_of_the_docs_is_made_from_the_modes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
