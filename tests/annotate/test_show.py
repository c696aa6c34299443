"""`regreason annotate --show`: answers as they were read, beside their conversations."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.asking import Workplace
from helpers.axolotl import environment
from helpers.openai_server import running

from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

THINKING = "<think>\x1b[31m [bold]x[/bold] \u202eabc"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """A finished run in which only the calls about naturalness have succeeded."""
    with running() as server:
        server.fault = lambda prompt, times: None if "how natural" in prompt else THINKING
        rater = {"prompts": ["scale-1-5"]}
        place = Workplace(tmp_path, server.url, 6, [rater], alarm={"action": "warn"}, minimum=1)
        assert main(["annotate", str(place.config)]) == 0
        total = server.total
        yield place
        # Showing asks nothing.
        assert server.total == total


def show_two(place: Workplace) -> str:
    # (A process of its own has the terminal's width from its start.)
    command = [sys.executable, "-m", "regreason_plugin", "annotate", str(place.config)]
    done = subprocess.run(
        [*command, "--show", "2"],
        check=True,
        capture_output=True,
        encoding="utf-8",
        env={**environment(), "COLUMNS": "200"},
    )
    return done.stdout


def test_each_state_has_answers_beside_their_conversations(place: Workplace) -> None:
    said = show_two(place)
    assert "rater-1: 12 only_thinking, 2 of them" in said
    assert "rater-1: 6 ok, 2 of them" in said
    assert said.count("naturalness, scale-1-5") == 2
    assert said.count("score: ") == 2
    calls = {row[0]: row[1:] for row in place.calls("id, axis, score, explanation") if row[3]}
    for part in said.split("naturalness, scale-1-5, ")[1:]:
        # The first line of a row has the conversation's id and the score.
        named = re.match(r"(\S+) .*score: (\d)", part)
        assert named
        identity, score = named.groups()
        _, stored, explanation = calls[identity]
        assert stored == int(score)
        assert explanation in part
    assert show_two(place) == said
    # Text from a server is no markup and moves nothing in the terminal.
    assert "\x1b[31m" not in said
    assert "[bold]x[/bold]" in said
    assert "\u202e" not in said


def test_a_store_without_answers_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path, "http://127.0.0.1:9/v1", 1, [{}])
    assert main(["annotate", str(place.config), "--show", "3"]) == 2
    assert "has no answers of the raters in the config" in capfd.readouterr().err
    assert main(["annotate", str(place.config), "--page", "x.html"]) == 2
    assert "--page needs --show N" in capfd.readouterr().err
    assert not place.store.exists()
