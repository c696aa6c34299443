"""Every way to answer of `helpers/answer_modes.py`: read in this process, and by the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.answer_modes import MODES, PAGE, SCALE, AnswerMode, Read, page
from helpers.asking import Workplace
from helpers.openai_server import Server, running

from regreason_plugin.annotate.answers import Answer, Unreadable, read_explanation, read_rating
from regreason_plugin.cli import main

ALL = {mode.name: mode for modes in MODES.values() for mode in modes}


def outcome(read: Callable[..., Answer], *arguments: Any) -> Read | str:
    try:
        answer = read(*arguments)
    except Unreadable as unreadable:
        return str(unreadable)
    return Read(answer.explanation, answer.score, answer.mended)


def test_the_modes_have_names_of_their_own() -> None:
    assert len(ALL) == sum(map(len, MODES.values())) >= 120


@pytest.mark.parametrize("mode", ALL.values(), ids=ALL)
def test_an_answer_is_read_as_written_down(mode: AnswerMode) -> None:
    assert outcome(read_rating, mode.text, SCALE) == mode.rating
    assert outcome(read_explanation, mode.text) == mode.explained


# By mode, what the command stores: state, score, explanation, and whether it keeps the text.
def stored(mode: AnswerMode) -> tuple[str, int | None, str | None, bool]:
    if isinstance(mode.rating, str):
        return mode.rating, None, None, True
    return "ok", mode.rating.score, mode.rating.explanation, mode.rating.mended


@pytest.mark.integration
def test_the_command_stores_what_was_read(tmp_path: Path) -> None:
    modes = [mode for some in MODES.values() for mode in some[:5] if mode.text != ""]
    modes = modes[: len(modes) // 3 * 3]
    left, given = iter(modes), dict[str, AnswerMode]()

    def answer(prompt: str, times: int) -> str:
        if prompt not in given:
            given[prompt] = next(left)
        return given[prompt].text

    with running(Server(fault=answer)) as server:
        rater = {"prompts": ["scale-1-5"], "concurrency": 1}
        place = Workplace(tmp_path / "w", server.url, len(modes) // 3, [rater], minimum=1)
        assert main(["annotate", str(place.config)]) == 0
    assert len(given) == len(modes)
    calls = place.calls("state, score, explanation, answer IS NOT NULL")
    expected = [(*one[:3], int(one[3])) for one in map(stored, modes)]
    assert sorted(calls, key=repr) == sorted(expected, key=repr)
    mended = sum(not isinstance(one.rating, str) and one.rating.mended for one in modes)
    assert place.about()["notes"]["answers whose JSON was mended"] == mended > 3


@pytest.mark.integration
@pytest.mark.parametrize("text", ["I'm sorry, but I can't help with that.", "<think>Hm.", "N/A"])
def test_a_merger_that_does_not_merge_replaces_nothing(text: str, tmp_path: Path) -> None:
    def answer(prompt: str, times: int) -> str | None:
        return None if "whole number from 1 to" in prompt else text

    merge = {"rater": "rater-1"}
    with running(Server(fault=answer)) as server:
        place = Workplace(tmp_path / "w", server.url, 1, [{"prompts": ["scale-1-5"]}], merge=merge)
        assert main(["annotate", str(place.config)]) == 0
    assert place.about()["notes"] == {"explanations that could not be merged": 3}
    (state,) = {row["merged"]["error"] for row in place.rows()}
    assert state == outcome(read_explanation, text)
    assert all(row["ratings"][0]["explanation"].startswith("It reads ") for row in place.rows())


def test_the_page_of_the_documentation_shows_every_mode() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/helpers/answer_modes.py"
