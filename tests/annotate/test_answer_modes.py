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
MERGING = "explanations of one conversation"


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


def test_the_page_of_the_documentation_shows_every_mode() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/helpers/answer_modes.py"
