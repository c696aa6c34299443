"""CoQA, in the original JSON and as rows of the Hub."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from helpers.raw_datasets import (
    coqa_hub,
    coqa_story,
    imported,
    texts,
    write_lines,
    write_parquet,
)

from regreason_plugin.core.errors import UserError
from regreason_plugin.data.groups import text_group

STORY = "Ann has a cat. It is white and sleeps in the barn."
PAIRS = (("Who has a cat?", "Ann"), ("What colour?", "white"), ("Where does it sleep?", "a barn"))
SAID = [
    ("user", "Who has a cat?"),
    ("assistant", "Ann"),
    ("user", "What colour?"),
    ("assistant", "white"),
    ("user", "Where does it sleep?"),
    ("assistant", "a barn"),
]


def original(path: Path, *stories: Any) -> Path:
    path.write_text(json.dumps({"version": "1.0", "data": stories}))
    return path


def test_both_formats_give_the_same_conversation(tmp_path: Path) -> None:
    sources = [
        original(tmp_path / "coqa-train-v1.0.json", coqa_story(STORY, *PAIRS)),
        write_parquet(tmp_path / "train.parquet", [coqa_hub(STORY, *PAIRS)]),
        write_lines(tmp_path / "train.jsonl.gz", [coqa_hub(STORY, *PAIRS)]),
    ]
    for source in sources:
        (got,), done = imported("coqa", source)
        assert texts(got) == SAID
        assert got.context == STORY
        assert got.group == text_group(STORY)
        assert got.meta == {"source": "mctest", "turn": 3, "turns": 3}
        assert not done.left_out


def test_turns_go_by_turn_id_not_by_place(tmp_path: Path) -> None:
    for seed in range(5):
        story = coqa_story(STORY, *PAIRS)
        random.Random(seed).shuffle(story["questions"])
        random.Random(seed + 9).shuffle(story["answers"])
        (got,), _ = imported("coqa", original(tmp_path / "a.json", story))
        assert texts(got) == SAID


@pytest.mark.parametrize("unknown", ["unknown", "Unknown", " unknown. "])
def test_it_ends_on_the_last_answer_that_says_something(tmp_path: Path, unknown: str) -> None:
    pairs = (("How old is Ann?", unknown), *PAIRS[:2], ("Why?", unknown), ("Really?", ""))
    for story in (coqa_story(STORY, *pairs), coqa_hub(STORY, *pairs)):
        (got,), done = imported("coqa", original(tmp_path / "a.json", story))
        assert texts(got) == [
            ("user", "How old is Ann?"),
            ("assistant", unknown.strip()),
            *SAID[:4],
        ]
        assert got.meta == {"source": "mctest", "turn": 3, "turns": 5}
        assert not done.left_out


def test_stories_that_repeat_are_one_group(tmp_path: Path) -> None:
    path = original(
        tmp_path / "a.json",
        coqa_story(STORY, *PAIRS),
        coqa_story(STORY.upper(), ("Who?", "Ann")),
        coqa_story("Another story.", *PAIRS),
    )
    conversations, done = imported("coqa", path)
    assert len(conversations) == 3
    assert done.groups == 2


def test_the_dev_file_has_more_answers_that_stay_behind(tmp_path: Path) -> None:
    story = coqa_story(STORY, *PAIRS)
    other = [{"input_text": "nobody", "turn_id": 3}]
    story["additional_answers"] = {"0": other, "1": other, "2": other}
    (got,), _ = imported("coqa", original(tmp_path / "coqa-dev-v1.0.json", story))
    assert texts(got) == SAID


def broken() -> list[tuple[Any, str]]:
    missing, twice, odd = (coqa_story(STORY, *PAIRS) for _ in range(3))
    del missing["answers"][1]
    twice["questions"][1]["turn_id"] = 1
    odd["questions"][1]["turn_id"] = "2"
    shorter = coqa_hub(STORY, *PAIRS)
    shorter["answers"]["input_text"].pop()
    return [
        (missing, "answers do not have the turn_ids of the questions"),
        (twice, "questions.turn_id is not an integer, or occurs twice"),
        (odd, "questions.turn_id is not an integer, or occurs twice"),
        (shorter, "answers differ in number from the questions"),
        ({**coqa_hub(STORY, *PAIRS), "answers": {"input_text": "a"}}, "answers.input_text is no"),
        ({**coqa_hub(STORY, *PAIRS), "questions": [1, "b", "c"]}, "questions is not a text"),
        ({**coqa_hub(STORY), "answers": None}, "answers is missing"),
        (coqa_story(" ", *PAIRS), "story is empty"),
        (coqa_story(STORY, ("", "a")), "no message from the user"),
        ("text", "not a JSON object"),
        (coqa_story(STORY, *PAIRS, questions=["a"]), "questions is not an object with input_text"),
    ]


@pytest.mark.parametrize("place", range(len(broken())))
def test_what_is_broken(tmp_path: Path, place: int) -> None:
    row, reason = broken()[place]
    path = original(tmp_path / "a.json", coqa_story("Sound.", *PAIRS), row)
    conversations, done = imported("coqa", path)
    assert len(conversations) == 1
    assert len(done.left_out) == 1
    assert next(iter(done.left_out)).startswith(reason)
    with pytest.raises(UserError, match="a.json, entry 2"):
        imported("coqa", path, tmp_path / "other.jsonl", strict=True)
    assert not (tmp_path / "other.jsonl").exists()


def test_a_story_without_an_answer_is_counted_and_not_broken(tmp_path: Path) -> None:
    path = original(
        tmp_path / "a.json", coqa_story(STORY, ("Who?", "unknown")), coqa_story(STORY, *PAIRS)
    )
    conversations, done = imported("coqa", path, strict=True)
    assert len(conversations) == 1
    assert done.left_out == {"every answer is 'unknown'": 1}
