"""Labelled tables: the same rows from every format, and one sentence for each fault."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import pyarrow as pa
import pytest
from helpers.labelled_tables import LABELS, write_answers, write_scale, write_tickets
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.task_file import Columns, Data, Task
from regreason_plugin.data.labelled_table import (
    Counts,
    TableRow,
    read_labelled,
    read_table,
)
from regreason_plugin.data.text_cleaning import clean
from regreason_plugin.data_folder.build import build_documents
from regreason_plugin.data_folder.sources import table_source

COLUMNS = Columns(text="text", label="label")
ALL = Columns(text="text", label="label", explanation="why", id="id", group="group")
Rows = list[dict[str, Any]]
ROWS: Rows = [
    {"text": "one", "label": "a", "why": "w1", "id": "1", "group": "g"},
    {"text": "two", "label": "b", "why": "w2", "id": "2", "group": "g"},
    {"text": "three, four\nfive", "label": "a", "why": "", "id": "3", "group": ""},
    {"text": 'said "six"', "label": "b", "why": "w4", "id": "", "group": "h"},
]


def as_csv(rows: Rows, delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(rows: Rows) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


FORMATS = {
    "a.csv": as_csv,
    "b.csv": lambda rows: b"\xef\xbb\xbf" + as_csv(rows, ";"),
    "c.tsv": lambda rows: as_csv(rows, "\t"),
    "d.csv": lambda rows: as_csv(rows, "|").replace(b"\r\n", b"\n"),
    "e.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "f.jsonl": as_jsonl,
    "g.jsonl.gz": lambda rows: gzip.compress(as_jsonl(rows)),
    "h.json": lambda rows: json.dumps(rows).encode(),
    "i.json.gz": lambda rows: gzip.compress(json.dumps(rows).encode()),
    "j.parquet": as_parquet,
}


def write(folder: Path, content: bytes, name: str = "t.csv") -> Data:
    (folder / name).write_bytes(content)
    return Data(path=folder / name)


def records(data: Data, columns: Columns = COLUMNS, **others: Any) -> tuple[list[TableRow], Counts]:
    counts = Counts()
    return list(read_table(data, columns, counts, **others)), counts


def labelled(data: Data, **changes: Any) -> tuple[list[TableRow], Counts]:
    counts = Counts()
    return list(read_labelled(task_of(data, **changes), counts)), counts


def task_of(data: Data, **changes: Any) -> Task:
    return Task.model_validate(
        {
            "name": "mine",
            "title": "Mine",
            "labels": ["a", "b"],
            "prompt": "{text}\nAnswer:",
            "data": data,
            "columns": COLUMNS,
            **changes,
        }
    )


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@settings(max_examples=30)
@given(st.lists(st.tuples(CELL, st.sampled_from(LABELS[:3]), CELL), min_size=4, max_size=12))
def test_every_format_has_the_same_rows(cells: list[tuple[str, str, str]]) -> None:
    rows = [
        {"text": f"{place} {text}", "label": label, "why": why + "."}
        for place, (text, label, why) in enumerate(cells)
    ]
    rows += [{"text": f"{label} {n}", "label": label, "why": ""} for label in "xy" for n in "12"]
    rows = [row for row in rows if [r["label"] for r in rows].count(row["label"]) > 1]
    columns = Columns(text="text", label="label", explanation="why")
    if not any(clean(row["why"]) for row in rows):
        columns = COLUMNS
    expected = [(clean(row["text"]), row["label"]) for row in rows]
    first = None
    with TemporaryDirectory() as folder:
        for name, encode in FORMATS.items():
            found, counts = records(write(Path(folder), encode(rows), name), columns)
            assert [record[2:4] for record in found] == expected, name
            assert counts.kept == counts.rows == len(rows)
            first = first or [record[:5] for record in found]
            assert [record[:5] for record in found] == first, name


@pytest.mark.parametrize("name", FORMATS)
def test_ids_groups_and_explanations_come_from_their_columns(tmp_path: Path, name: str) -> None:
    found, counts = records(write(tmp_path, FORMATS[name](ROWS), name), ALL)
    assert [(record.id, record.group, record.explanation) for record in found[:2]] == [
        ("1", "g", "w1"),
        ("2", "g", "w2"),
    ]
    # An empty cell has the same effect as a missing column.
    without, _ = records(write(tmp_path, FORMATS[name](ROWS), name))
    assert (found[2].group, found[2].explanation) == (without[2].group, None)
    assert found[3].id == without[3].id != without[2].id
    assert (counts.explained, counts.groups) == (3, 3)
    texts = ["one", "two", "three, four\nfive", 'said "six"']
    assert [record.text for record in found] == texts


def test_a_text_has_one_id_and_what_differs_in_case_one_group(tmp_path: Path) -> None:
    rows = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(["x", "y", "X!", "z"])]
    one, _ = records(write(tmp_path, as_csv(rows)))
    other, _ = records(write(tmp_path, as_csv(rows[::-1])))
    assert {record.text: record.id for record in one} == {r.text: r.id for r in other}
    assert len({record.id for record in one}) == 4
    assert one[0].group == one[2].group
    assert len({record.group for record in one}) == 3


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    content = b'text,label\n"1\n2",a\n\nthree,b\nfour,a\nfive,b\n'
    assert [record.line for record in records(write(tmp_path, content))[0]] == [2, 5, 6, 7]


def test_what_is_of_no_use_is_dropped_and_counted(tmp_path: Path) -> None:
    lines = ["x,a", "y,b", "x,a", ",a", "  ,b", "z,", "x ,a", "u,a", "v,b"]
    found, counts = records(write(tmp_path, "\n".join(["text,label", *lines]).encode()))
    assert [record.text for record in found] == ["x", "y", "u", "v"]
    assert (counts.rows, counts.kept, counts.blank) == (9, 4, 2)
    assert (counts.unlabelled, counts.duplicates) == (1, 2)
    assert counts.labels == {"a": 2, "b": 2}


def test_numbers_are_the_same_labels_in_every_format(tmp_path: Path) -> None:
    rows: Rows = [{"text": f"t{n}", "label": n % 2 + 1} for n in range(4)]
    # Because of one missing label, pandas writes all labels as floats.
    floats = [{**row, "label": float(row["label"])} for row in rows]
    floats.append({"text": "t9", "label": float("nan")})
    for name, content in (
        ("a.csv", as_csv(rows)),
        ("b.jsonl", as_jsonl(rows)),
        ("c.parquet", as_parquet(rows)),
        ("d.parquet", as_parquet(floats)),
    ):
        assert set(records(write(tmp_path, content, name))[1].labels) == {"1", "2"}
    truths = [{"text": f"t{n}", "label": n > 1} for n in range(4)]
    assert set(records(write(tmp_path, as_parquet(truths), "e.parquet"))[1].labels) == {
        "true",
        "false",
    }


def test_labels_are_numbered_as_the_task_lists_them(tmp_path: Path) -> None:
    data = write(tmp_path, b"text,label\n1,good\n2,bad\n3,fine\n4,bad\n")
    found, _ = labelled(data, labels=["bad", "good"], values={"fine": "good"})
    assert [row.number for row in found] == [2, 1, 2, 1]


def test_rows_are_documents(tmp_path: Path) -> None:
    data = write(tmp_path, as_jsonl(ROWS), "t.jsonl")
    counts = Counts()
    source = table_source(task_of(data, columns=ALL), counts)
    documents = dict(source.documents)
    assert counts.kept == len(documents) == 4
    assert list(documents.values())[1] == {
        "id": "2",
        "dataset": "mine",
        "group": "g",
        "conversation": [{"role": "assistant", "content": "two"}],
        "axis": "label",
        "label": 2,
        "score": 2.0,
        "explanation": "w2",
    }
    assert list(documents.values())[2]["explanation"] == ""
    assert (source.name, source.place(2)) == ("t.jsonl", f"{tmp_path / 't.jsonl'}, line 2")


def test_a_table_with_a_wrong_row_leaves_nothing(tmp_path: Path) -> None:
    data = write(tmp_path, as_jsonl([*ROWS, {"text": "x", "label": "c"}]), "t.jsonl")
    with pytest.raises(UserError, match="is not a label of the task"):
        build_documents(table_source(task_of(data), Counts()), tmp_path / "out" / "data")
    assert not list(tmp_path.glob("out/*"))


def test_the_three_tables(tmp_path: Path) -> None:
    columns = Columns(text="message", label="queue", id="ticket")
    _, tickets = records(Data(path=write_tickets(tmp_path)), columns)
    assert tickets.labels == dict.fromkeys(LABELS, 25)
    columns = Columns(text="answer", label="points", explanation="reason")
    _, scale = records(Data(path=write_scale(tmp_path)), columns)
    assert scale.labels == {str(point): 30 for point in range(1, 8)}
    columns = Columns(text="text", label="verdict", explanation="why", id="id", group="book")
    _, answers = records(Data(path=write_answers(tmp_path)), columns)
    assert answers.labels == {"right": 80, "wrong": 40}
    assert (answers.explained, answers.groups) == (120, 60)


GOOD = "text,label\n1,a\n2,b\n3,a\n4,b\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty; expected a header"),
        ("text,label\n", "has no rows"),
        ("txt,label\n1,a\n", r"has no column 'text' for the text; did you mean 'txt'\?"),
        ("text,stars\n1,a\n", "has no column 'label' for the label; known: stars, text"),
        ("text,label,text\n1,a,2\n", "line 1: has two columns 'text'"),
        (GOOD + "5,a,b\n", "line 6: has 3 fields, but the header has 2"),
        (GOOD + "5\n", "line 6: has 1 fields, but the header has 2"),
        (GOOD + '"5,a\n', "line 6: is not a row of CSV"),
        (GOOD + '"5"x,a\n', "line 6: is not a row of CSV"),
        (GOOD.replace("3,", "\udcff,"), "line 4: byte 1 is not UTF-8"),
        ("text,label\n1,a\n2,a\n", "field label: all rows have the label 'a'"),
        (GOOD + "5,c\n", "field label: label 'c' has one row"),
        (GOOD + "5,c\n6,d\n", r"field label: label 'c' has one row \(and 1 more such labels\)"),
        ("text,label\n,a\n ,b\n", "field text: all of its 2 texts are empty"),
        ("text,label\n1,\n2,\n", "field label: none of its 2 rows has a label"),
        (
            GOOD + "1,b\n2,a\n",
            "2 rows repeat an earlier text with another label; the first, '1', is 'a' in line 2 "
            "and 'b' in line 6",
        ),
    ],
)
def test_says_what_is_wrong_with_a_table(tmp_path: Path, content: str, said: str) -> None:
    data = write(tmp_path, content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=said) as error:
        records(data)
    assert str(error.value).startswith(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", b'{"text": "1", "label": "a"}\n{"text": \n', "line 2: not a JSON object"),
        ("t.jsonl", b"[1]\n", "line 1: not a JSON object"),
        ("t.jsonl", b"", "is empty"),
        ("t.jsonl", as_jsonl(ROWS).replace(b'"two"', b"[2]"), "line 2, field text: is neither a"),
        ("t.json", b'{"text": 1}', "has no column 'label'"),
        ("t.json", b"[]", "has no list of rows"),
        ("t.parquet", b"no", "is not a parquet file"),
        ("t.parquet", as_parquet([{"text": "1"}]), "has no column 'label'"),
        ("t.csv.gz", b"no", "not a whole gzip file"),
        ("t.csv.gz", gzip.compress(GOOD.encode(), mtime=0)[:-9], "not a whole gzip file"),
        ("t.xlsx", b"no", "has to end with one of"),
    ],
)
def test_says_what_is_wrong_with_a_file(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        records(write(tmp_path, content, name))


def test_says_that_there_is_no_file(tmp_path: Path) -> None:
    for name in ("t.csv", "t.jsonl", "t.json", "t.parquet"):
        with pytest.raises(UserError, match="no such file"):
            records(Data(path=tmp_path / name))
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        records(Data(path=tmp_path / "t.csv"))


def test_labels_have_to_be_those_of_the_task(tmp_path: Path) -> None:
    data = write(tmp_path, GOOD.encode())
    with pytest.raises(UserError, match="t.csv, line 3, field label: label 'b' is not a label"):
        labelled(data, labels=["a", "bb"])
    with pytest.raises(UserError, match="field label: no row has the task's label 'c'"):
        labelled(data, labels=["a", "b", "c"])


def test_explanations_and_ids_have_to_be_of_use(tmp_path: Path) -> None:
    rows = [{**row, "why": " "} for row in ROWS]
    with pytest.raises(UserError, match="field why: is empty in all 4 rows"):
        records(write(tmp_path, as_csv(rows)), ALL)
    rows = [{**row, "id": "1"} for row in ROWS]
    with pytest.raises(UserError, match="line 3, field id: id '1' is also the id of line 2"):
        records(write(tmp_path, as_csv(rows)), ALL)


def test_a_column_of_texts_is_no_label(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": f"l{n // 2}"} for n in range(2100)]
    with pytest.raises(UserError, match="field label: has more than 1000 different values"):
        records(write(tmp_path, as_csv(rows)))


def test_classes_of_the_hub_have_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(4)] + [{"text": "u", "label": -1}]
    stream = datasets.Dataset.from_list(rows, features=features).to_iterable_dataset()
    asked = []

    def load(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs["split"], kwargs["streaming"]))
        return stream

    monkeypatch.setattr(datasets, "load_dataset", load)
    found, counts = records(Data(hub="a/b", config="c", split="test"))
    assert asked == [(("a/b", "c"), "test", True)]
    assert [record.label for record in found] == ["no", "yes", "no", "yes"]
    assert counts.unlabelled == 1


def test_a_hub_that_cannot_be_reached_is_one_sentence() -> None:
    # conftest.py makes the Hub unreachable.
    said = r"^nobody/nothing/train: cannot be loaded from the Hub .* and name it with --data$"
    with pytest.raises(UserError, match=said):
        records(Data(hub="nobody/nothing"), option="--data")
