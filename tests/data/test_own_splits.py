"""Splits of the user's own: which row is in which split, and what two splits share."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.task_file import Columns, Data
from regreason_plugin.data.labelled_table import Counts, TableRow, read_table

COLUMNS = Columns(text="text", label="label", id="id", split="split")
IN_FILES = Columns(text="text", label="label", group="group")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def read(data: Data, columns: Columns, **others: Any) -> tuple[list[TableRow], Counts]:
    counts = Counts()
    return list(read_table(data, columns, counts, **others)), counts


def rows(splits: list[str]) -> list[dict[str, Any]]:
    return [
        {"id": f"r{n}", "text": f"text {n}", "label": "ab"[n % 2], "split": split}
        for n, split in enumerate(splits)
    ]


def test_a_column_in_the_usual_spellings(tmp_path: Path) -> None:
    spelled = ["train", "Train", "test", " TEST ", "validation", "val", "valid", "dev", "eval"]
    meant = ["train"] * 2 + ["test"] * 2 + ["validation"] * 5
    found, counts = read(Data(path=write(tmp_path / "t.csv", rows(spelled))), COLUMNS)
    assert [row.split for row in found] == meant
    assert {split: labels.total() for split, labels in counts.splits.items()} == Counter(meant)
    own_names = {"train", "test", "validation"}
    assert counts.spellings == {
        name.strip(): split
        for name, split in zip(spelled, meant, strict=True)
        if name not in own_names
    }


@pytest.mark.parametrize(("cell", "said"), [("trian", "'trian' is no split"), ("", "is empty")])
def test_another_cell_is_refused_with_its_line(tmp_path: Path, cell: str, said: str) -> None:
    table = write(tmp_path / "t.csv", rows(["train", "train", "test", "test", cell]))
    with pytest.raises(UserError, match=f"t.csv, line 6, field split: {said}; write train"):
        read(Data(path=table), COLUMNS)


@pytest.mark.parametrize(("lacking", "has"), [("train", "test"), ("test", "train")])
def test_train_and_test_rows_are_needed(tmp_path: Path, lacking: str, has: str) -> None:
    table = write(tmp_path / "t.csv", rows([has] * 4 + ["validation"] * 2))
    with pytest.raises(UserError, match=f"no row is in {lacking}; mark or add rows"):
        read(Data(path=table), COLUMNS)


def of_customers(random: Random, count: int, first: int) -> list[dict[str, Any]]:
    """Rows whose few texts and customers repeat, and one row that no other can share with."""
    own = {"text": f"Own text of {first}", "label": "b", "group": f"own {first}"}
    return [own] + [
        {
            "text": random.choice(("Text {}!", "text {}", "TEXT  {}")).format(random.randrange(40)),
            "label": "a",
            "group": random.choice(["", f"c{random.randrange(40)}"]),
        }
        for _ in range(count)
    ]


def shared(row: dict[str, Any], other: dict[str, Any]) -> bool:
    one, two = ("".join(filter(str.isalnum, r["text"])).lower() for r in (row, other))
    return one == two or (bool(row["group"]) and row["group"] == other["group"])


@pytest.mark.parametrize("seed", range(8))
def test_dropping_keeps_test_whole_and_shares_nothing(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    tables = {
        name: of_customers(random, count, first)
        for first, (name, count) in enumerate({"train": 30, "validation": 9, "test": 9}.items())
    }
    paths = {name: write(tmp_path / f"{name}.csv", table) for name, table in tables.items()}
    data = Data(path=paths["train"], test=str(paths["test"]), validation=str(paths["validation"]))
    # Compared pair by pair, without hashes.
    lost = {
        "train": [
            any(shared(row, other) for name in ("validation", "test") for other in tables[name])
            for row in tables["train"]
        ],
        "validation": [
            any(shared(row, other) for other in tables["test"]) for row in tables["validation"]
        ],
        "test": [False] * 10,
    }
    found, counts = read(data, IN_FILES, on_overlap="drop")
    assert dict(counts.overlap) == {name: sum(of) for name, of in lost.items() if any(of)}
    kept = {
        (name, "".join(filter(str.isalnum, row["text"])).lower())
        for name, table in tables.items()
        for row, gone in zip(table, lost[name], strict=True)
        if not gone
    }
    assert {(r.split, "".join(filter(str.isalnum, r.text)).lower()) for r in found} == kept
    assert len({(row.group, row.split) for row in found}) == len({row.group for row in found})
    if counts.overlap:
        with pytest.raises(UserError) as error:
            read(data, IN_FILES)
        said = str(error.value)
        for name, number in counts.overlap.items():
            assert f"{number} {name}" in said
        assert "--on-overlap drop (`on_overlap: drop`" in said


def test_the_first_example_names_both_rows(tmp_path: Path) -> None:
    table = rows(["train", "train", "train", "test", "test", "validation"])
    table[5]["text"] = "TEXT: 4."
    data = Data(path=write(tmp_path / "t.csv", table))
    said = (
        r"t.csv: 1 validation row shares a text or a group with a test or validation row; the "
        r"first, line 7 \(validation\), has the text 'TEXT: 4.' of line 6 \(test\); remove one"
    )
    with pytest.raises(UserError, match=said):
        read(data, COLUMNS)


def test_another_label_of_a_shared_text_is_an_overlap_and_no_contradiction(tmp_path: Path) -> None:
    table = rows(["train", "train", "train", "test", "test", "train"])
    table[5] |= {"text": "text 4", "label": "b"}
    data = Data(path=write(tmp_path / "t.csv", table))
    found, counts = read(data, COLUMNS, on_overlap="drop")
    assert [row.id for row in found] == ["r0", "r1", "r2", "r3", "r4"]
    assert counts.overlap == {"train": 1}
    assert counts.duplicates == 0


def test_ids_are_unique_in_all_files(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", rows(["train"] * 4))
    test = write(tmp_path / "test.csv", [{"id": "r2", "text": "z", "label": "a", "split": ""}])
    columns = Columns(text="text", label="label", id="id")
    said = "test.csv, line 2, field id: id 'r2' is also the id of line 4 of .*train.csv, which has"
    with pytest.raises(UserError, match=said):
        read(Data(path=train, test=str(test)), columns)


def test_whole_numbers_are_read_in_the_same_way_in_all_files(tmp_path: Path) -> None:
    """A group 7.0 of one file is the group 7 of the other, unless one file has other texts."""
    train = [{"text": f"a{n}", "label": "ab"[n % 2], "group": f"{n}.0"} for n in range(6)]
    test = [{"text": f"b{n}", "label": "ab"[n % 2], "group": str(n + 3)} for n in range(6)]
    paths = write(tmp_path / "train.csv", train), write(tmp_path / "test.csv", test)
    _, counts = read(Data(path=paths[0], test=str(paths[1])), IN_FILES, on_overlap="drop")
    assert counts.overlap == {"train": 3}
    test[0]["group"] = "x"
    write(paths[1], test)
    _, counts = read(Data(path=paths[0], test=str(paths[1])), IN_FILES, on_overlap="drop")
    assert counts.overlap == {}
    assert counts.splits["train"].total() == 6


def test_a_file_without_a_column_is_named(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", rows(["train"] * 4))
    test = write(tmp_path / "test.csv", [{"text": "z", "queue": "a"}])
    columns = Columns(text="text", label="label")
    with pytest.raises(UserError, match=r"test.csv: has no column 'label' for the label"):
        read(Data(path=train, test=str(test)), columns)
