"""The reader returns valid records, and names file, line and field of a mistake."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import count_lines, read_objects, read_records, write_records
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.core.records import Conversation, Rating, Turn
from regreason_plugin.core.whole_files import atomic_writer

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
filled = text.filter(lambda value: value.strip() != "")


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    turns = [
        Turn(role=draw(st.sampled_from(["user", "assistant", "system"])), content=draw(text))
        for _ in range(draw(st.integers(0, 3)))
    ]
    return Conversation(
        id=draw(filled),
        dataset=draw(st.sampled_from(["coqa", "hh_chosen"])),
        group=draw(filled),
        conversation=[*turns, Turn(role="assistant", content=draw(filled))],
        context=draw(st.none() | text),
    )


@given(st.lists(conversations(), min_size=1, max_size=5, unique_by=lambda c: c.id))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, records: list[Conversation]
) -> None:
    path = tmp_path_factory.mktemp("records") / "file.jsonl"
    assert write_records(path, records) == len(records)
    assert list(read_records(path, Conversation, declaration=EIGHTEEN)) == records


@given(st.binary(max_size=200))
def test_any_bytes_give_records_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "file.jsonl"
    path.write_bytes(raw)
    with pytest.raises(UserError) as error:
        list(read_records(path, Conversation, declaration=EIGHTEEN))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


GOOD: dict[str, Any] = {
    "id": "a",
    "dataset": "coqa",
    "group": "g",
    "conversation": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}],
    "axis": "on_topic",
    "label": 3,
    "score": 3.0,
    "explanation": "because",
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"label": 0}, "field label"),
        ({"label": 6}, "field label"),
        ({"label": "3"}, "field label"),
        ({"label": 3.5}, "field label"),
        ({"label": True}, "field label"),
        ({"score": 5.1}, "field score"),
        ({"conversation": []}, "no messages"),
        ({"conversation": [{"role": "user", "content": "q"}]}, "must be the assistant's"),
        ({"conversation": [{"role": "assistant", "content": " \n"}]}, "is empty"),
        ({"dataset": "coqua"}, "did you mean 'coqa'?"),
        ({"axis": "on-topic"}, "did you mean 'on_topic'?"),
        ({"explanation": " "}, "field explanation"),
        ({"id": ""}, "field id"),
        ({"lable": 3}, "field lable"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    path = tmp_path / "ratings.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "id": "b", **change}) + "\n")
    with pytest.raises(UserError) as error:
        list(read_records(path, Rating, declaration=EIGHTEEN))
    assert f"{path}, line 2" in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_score_that_is_no_number_is_refused(tmp_path: Path, constant: str) -> None:
    path = tmp_path / "ratings.jsonl"
    path.write_text(json.dumps(GOOD).replace("3.0", constant) + "\n")
    with pytest.raises(UserError, match="line 1.*not a number that JSON allows"):
        list(read_records(path, Rating, declaration=EIGHTEEN))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "is empty"),
        (json.dumps(GOOD).encode()[:40], "line 1.*is the file cut off"),
        (json.dumps(GOOD).encode() + b'\n{"id": "b', "line 2.*is the file cut off"),
        (b'{"id": "\xff"}\n', "line 1.*not UTF-8"),
        (b"[1]\n", "line 1.*not a JSON object"),
        (json.dumps(GOOD).encode() + b"\n\xef\xbb\xbf\n", "line 2"),
        (b"\xef\xbb\xbf\n \n", "is empty"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, raw: bytes, expected: str) -> None:
    path = tmp_path / "ratings.jsonl"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=expected):
        list(read_records(path, Rating, declaration=EIGHTEEN))


def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    other = json.dumps({**GOOD, "id": "b"})
    path = tmp_path / "RATINGS.JSONL.GZ"
    raw = f"\ufeff{json.dumps(GOOD)}\r\n\n{other}\n \t\n".encode()
    path.write_bytes(gzip.compress(raw))
    assert [record.id for record in read_records(path, Rating, declaration=EIGHTEEN)] == ["a", "b"]
    assert [(line, value["id"]) for line, value in read_objects(path)] == [
        (1, GOOD["id"]),
        (3, "b"),
    ]
    assert count_lines(path) == 2


def test_a_second_id_is_refused_but_not_on_another_axis(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    other_axis = {**GOOD, "axis": "naturalness"}
    path.write_text("\n".join(map(json.dumps, [GOOD, other_axis])) + "\n")
    assert len(list(read_records(path, Rating, declaration=EIGHTEEN))) == 2
    path.write_text("\n".join(map(json.dumps, [GOOD, other_axis, GOOD])) + "\n")
    with pytest.raises(UserError, match="line 3.*is also on line 1"):
        list(read_records(path, Rating, declaration=EIGHTEEN))


def test_missing_files_folders_and_broken_gzip(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        list(read_records(tmp_path / "nowhere.jsonl", Rating, declaration=EIGHTEEN))
    with pytest.raises(UserError, match="is a folder"):
        list(read_records(tmp_path, Rating, declaration=EIGHTEEN))
    whole = gzip.compress(json.dumps(GOOD).encode() + b"\n")
    for name, raw in {"cut.jsonl.gz": whole[:-6], "plain.jsonl.gz": b"{}"}.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(UserError, match="not a whole gzip file"):
            list(read_records(tmp_path / name, Rating, declaration=EIGHTEEN))
    (tmp_path / "whole.jsonl.gz").write_bytes(whole)
    assert len(list(read_records(tmp_path / "whole.jsonl.gz", Rating, declaration=EIGHTEEN))) == 1


def test_a_write_that_fails_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_writer(path) as stream:
        stream.write(b"half of the new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_that_names_no_task_is_a_fault_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    with pytest.raises(TypeError, match="name the task"):
        list(read_records(path, Rating))
    assert Rating.model_validate({**GOOD, "dataset": "mine"}).dataset == "mine"
