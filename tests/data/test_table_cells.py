"""Cells as text: numbers, ids that are equal after reading, bytes, and refused cells."""

from __future__ import annotations

import hashlib
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.task_file import Columns, Data, Task
from regreason_plugin.data.cells import text_of, whole_number, written
from regreason_plugin.data.labelled_table import Counts, read_labelled, read_table
from regreason_plugin.predict.input_rows import read_rows

COLUMNS = Columns(text="text", label="label", id="id")


def write(folder: Path, content: str, name: str = "t.csv") -> Data:
    (folder / name).write_text(content, encoding="utf-8")
    return Data(path=folder / name)


def table(folder: Path, labels: list[Any], ids: list[Any] | None = None) -> Data:
    ids = ids or [f"r{n}" for n in range(len(labels))]
    rows = [f"{i},text {n},{label}" for n, (i, label) in enumerate(zip(ids, labels, strict=True))]
    return write(folder, "\n".join(["id,text,label", *rows]) + "\n")


def labels(data: Data, **changes: Any) -> list[int]:
    task = {"name": "mine", "title": "Mine", "prompt": "{text}\nAnswer:", **changes}
    task |= {"data": data, "columns": COLUMNS}
    return [row.number for row in read_labelled(Task.model_validate(task))]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        *(("1", "1"), ("1.0", "1"), ("-3.000", "-3"), ("0.0", "0"), ("-0.0", "0")),
        ("1.2345678901234568e+17", "123456789012345680"),
        *((text, None) for text in ("01", "+1", "1.", ".0", "1.5", "1e5", "v1", "1.0.0", "", "٣")),
        *((text, None) for text in ("1,0", "1_0", "1.5e+00", "1e+999", "nan", "Infinity")),
    ],
)
def test_a_whole_number_is_known(text: str, whole: str | None) -> None:
    assert whole_number(text) == whole


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, ""), (float("nan"), ""), (Decimal("NaN"), ""), ("", "")),
        *((1, "1"), (1.0, "1.0"), (1e17, "1e+17"), (True, "True"), (Decimal("1E+2"), "100")),
        *((Decimal("0.00000001"), "0.00000001"), ("a\ud800".encode("utf-8", "replace"), "a?")),
        *(("\u00e9".encode(), "\u00e9"), ("a\ud800", "a\ufffd"), ("\ud83d\ude42", "\U0001f642")),
    ],
)
def test_a_cell_is_written_as_csv_has_it(value: Any, text: str) -> None:
    assert written(value) == text


def test_a_text_is_read_by_itself() -> None:
    assert [text_of(value) for value in (1.0, "1.0", Decimal("1.00"), 1, b"1.0")] == ["1"] * 5
    assert [text_of(value) for value in (1.5, "1.50", "v1.0", " 01 ")] == [
        *("1.5", "1.50", "v1.0", "01")
    ]


def test_labels_of_a_task_made_when_numbers_were_names(tmp_path: Path) -> None:
    old = {"labels": ["1.0", "2.0", "3.0"]}
    assert labels(table(tmp_path, ["1.0", "2.0", "3.0"] * 2), **old) == [1, 2, 3] * 2
    assert labels(table(tmp_path, [1, 2, 3] * 2), **old) == [1, 2, 3] * 2
    upper = {"labels": ["False", "True"]}
    assert labels(table(tmp_path, ["true", "false"] * 2), **upper) == [2, 1] * 2


@pytest.mark.parametrize("values", [{"1": "bad", "2": "good"}, {"1.0": "bad", "2.0": "good"}])
@pytest.mark.parametrize("cells", [["1.0", "2.0"], [1, 2]])
def test_values_are_those_of_any_format(
    tmp_path: Path, values: dict[str, str], cells: list[Any]
) -> None:
    found = labels(table(tmp_path, cells * 2), labels=["bad", "good"], values=values)
    assert found == [1, 2, 1, 2]


def test_values_that_are_one_number_stand_for_one_label(tmp_path: Path) -> None:
    said = "t.csv, field label: all labels are integers, so '1.0' is read as '1', which cannot "
    with pytest.raises(UserError, match=said + "mean both 'a' and 'b'"):
        labels(table(tmp_path, [1, 2] * 2), labels=["a", "b"], values={"1": "a", "1.0": "b"})


def test_a_name_that_looks_like_a_number_stays(tmp_path: Path) -> None:
    names = ["1.0", "v1", "1", "1.5"]
    assert labels(table(tmp_path, names * 2), labels=names, label_end=";") == [1, 2, 3, 4] * 2


def test_missing_labels_are_no_class_beside_numbers_alone(tmp_path: Path) -> None:
    def found(cells: list[str]) -> tuple[set[str], int]:
        counts = Counts()
        list(read_table(table(tmp_path, cells), COLUMNS, counts))
        return set(counts.labels), counts.unlabelled

    assert found(["1.0", "2.0", "nan", "1.0", "2.0", "", "None"]) == ({"1", "2"}, 3)
    assert found(["True", "False", "NaN", "true", "FALSE", ""]) == ({"true", "false"}, 2)
    assert found(["mild", "None", "mild", "None", ""]) == ({"mild", "None"}, 1)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_ids_are_unique_once_they_are_read(tmp_path: Path, name: str) -> None:
    ids: list[Any] = [1.0, 2.0, 3.0, 1.0]
    rows = [{"id": i, "text": f"t{n}", "label": "ab"[n % 2]} for n, i in enumerate(ids)]
    if name == "t.csv":
        data = table(tmp_path, list("abab"), ["1.0", "2", "3", "1"])
    elif name == "t.jsonl":
        data = write(tmp_path, "".join(f"{row}\n".replace("'", '"') for row in rows), name)
    else:
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        data = Data(path=tmp_path / name)
    said = r"t\.\w+, (line|row) \d, field id: id '1' is also the id of (line|row) \d"
    with pytest.raises(UserError, match=said):
        list(read_table(data, COLUMNS, Counts()))
    assert data.path is not None
    with pytest.raises(UserError, match=said):
        list(read_rows(data.path, "text"))


def test_ids_that_differ_as_they_are_written_are_kept_apart(tmp_path: Path) -> None:
    ids = ["1.0", "1", "01", "v1", " 1"]
    data = table(tmp_path, list("ababa"), ids)
    assert [record.id for record in read_table(data, COLUMNS, Counts())] == ids
    assert data.path is not None
    assert [row.id for row in read_rows(data.path, "text")] == ids


def test_the_number_of_a_row_without_an_id_is_no_other_rows_id(tmp_path: Path) -> None:
    data = write(tmp_path, "id,text,label\n3,one,a\n,two,b\n5,three,a\n,four,b\n")
    path = data.path
    assert path is not None
    said = "line 3, field id: has no id and gets its number, 3, which is the id of line 2; ids"
    with pytest.raises(UserError, match=said):
        list(read_rows(path, "text"))
    assert [row.id for row in read_rows(path, "text", limit=1)] == ["3"]
    # In a labelled table, a row without an id gets a hash of its text instead.
    assert len({record.id for record in read_table(data, COLUMNS, Counts())}) == 4
    write(tmp_path, "id,text,label\n,one,a\n2,two,b\n")
    with pytest.raises(UserError, match="line 3, field id: id '2' is also the number of line 2"):
        list(read_rows(path, "text"))
    # A labelled table, too, can have an id that equals the hash of another row's text.
    known = f"text-{hashlib.sha256(b'one').hexdigest()[:16]}"
    data = write(tmp_path, f"id,text,label\n{known},zero,a\n,one,a\ny,three,b\nz,four,b\n")
    with pytest.raises(UserError, match="line 3, field id: id 'text-.*' is also the id of line 2"):
        list(read_table(data, COLUMNS, Counts()))


def test_ids_take_little_memory_and_none_without_a_column(tmp_path: Path) -> None:
    def peak(header: str, first: str) -> int:
        rows = "".join(f"{first.format(n)}text {n}\n" for n in range(20_000))
        (tmp_path / "t.csv").write_text(header + rows)
        list(read_rows(tmp_path / "t.csv", "text", limit=2))  # imports
        tracemalloc.start()
        assert sum(1 for _ in read_rows(tmp_path / "t.csv", "text")) == 20_000
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    without = peak("text\n", "")
    assert peak("id,text\n", "customer number {},") - without < 20_000 * 40
    assert without < 20_000 * 4


@pytest.mark.parametrize("column", ["text", "label", "id"])
def test_bytes_that_are_no_text_are_named(tmp_path: Path, column: str) -> None:
    rows = [{"id": f"r{n}", "text": f"t{n}", "label": "ab"[n % 2]} for n in range(6)]
    cells = {name: [str(row[name]).encode() for row in rows] for name in rows[0]}
    cells[column][3] = b"\xff\xfe"
    parquet.write_table(pa.table(cells), tmp_path / "t.parquet")
    data = Data(path=tmp_path / "t.parquet")
    said = rf"t.parquet, row 4, field {column}: contains bytes that are not UTF-8 \(got b'\\xff"
    with pytest.raises(UserError, match=said):
        list(read_table(data, COLUMNS, Counts()))
    if column == "id":
        with pytest.raises(UserError, match=said):
            list(read_rows(tmp_path / "t.parquet", "text"))
