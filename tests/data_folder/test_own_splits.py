"""Data folders with splits of the user's own, and drawn ones in which no class is left out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regreason_plugin.cli import main
from regreason_plugin.core.errors import UserError
from regreason_plugin.data_folder.build import build_task
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.data_folder.row_writer import BuildOptions

SPLITS = ("train", "validation", "test")
TASK = """\
name: mine
title: Mine
labels: [common, rare]
prompt: "{text}\\nAnswer:"
data: {path: train.csv}
columns: {text: text, label: label, group: group}
"""


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def rows(name: str, count: int, rare: Callable[[int], bool]) -> list[dict[str, Any]]:
    return [
        {
            "text": f"{name} {n}",
            "label": "rare" if rare(n) else "common",
            "group": f"{name} {n // 2}",
            "part": name,
        }
        for n in range(count)
    ]


def built(folder: Path, changes: str = "", old: str = "", new: str = "", **keys: Any) -> DataFolder:
    (folder / "task.yml").write_text(TASK.replace(old, new) + changes, encoding="utf-8")
    return build_task(folder / "task.yml", folder / "data", BuildOptions(), **keys)[0]


def ids(data: DataFolder) -> dict[str, set[str]]:
    """The prompts of each split without the question, which are the texts."""
    names = {"train": "train/label_only.jsonl", "validation": "validation/label_only.jsonl"}
    return {
        split: {
            json.loads(line)["messages"][0]["content"].splitlines()[0]
            for line in (data.path / names.get(split, "test.jsonl")).read_text().splitlines()
        }
        for split in SPLITS
    }


def test_a_column_sets_all_three_splits(tmp_path: Path) -> None:
    parts = {name: rows(name, 20, lambda n: n % 3 == 0) for name in ("train", "dev", "test")}
    write(
        tmp_path / "train.csv", [row for n in range(20) for row in (p[n] for p in parts.values())]
    )
    data = built(tmp_path, old="group: group", new="group: group, split: part")
    assert ids(data) == {
        "train": {row["text"] for row in parts["train"]},
        "validation": {row["text"] for row in parts["dev"]},
        "test": {row["text"] for row in parts["test"]},
    }
    own = data.manifest.own_splits
    assert own is not None
    assert own.model_dump() == {
        "column": "part",
        "validation": "own",
        "spellings": {"dev": "validation"},
        "on_overlap": "refuse",
        "dropped": {},
    }
    card = (data.path / "README.md").read_text(encoding="utf-8")
    assert "The splits are those of the source table, set in the column `part`." in card
    assert "Read: `dev` as validation." in card


def test_a_test_file_keeps_its_rows_and_validation_is_drawn_in_whole_groups(tmp_path: Path) -> None:
    train = rows("train", 80, lambda n: n in (3, 50))
    test = rows("test", 10, lambda n: n == 0)
    shared = {"text": "TRAIN, 7", "label": "common", "group": "new", "part": ""}
    write(tmp_path / "train.csv", train)
    write(tmp_path / "test.csv", [*test, shared])
    file = ("data: {path: train.csv", "data: {path: train.csv, test: test.csv")
    with pytest.raises(UserError, match=r"1 train row shares .*line 9 \(train\).*line 12 \(test\)"):
        built(tmp_path, "", *file)
    assert not (tmp_path / "data").exists()
    for seed in range(6):
        data = built(tmp_path, "split: {on_overlap: drop, validation: 0.2}\n", *file, seed=seed)
        found = ids(data)
        assert found["test"] == {row["text"] for row in test} | {"TRAIN, 7"}
        left = {row["text"]: row for row in train if row["text"] != "train 7"}
        assert found["train"] | found["validation"] == set(left)
        assert not found["train"] & found["validation"]
        groups = {s: {left[text]["group"] for text in found[s]} for s in SPLITS[:2]}
        assert not groups["train"] & groups["validation"]
        assert 14 <= len(found["validation"]) <= 18
        # Two groups have the rare label: one is for training, the other for validation.
        assert "rare" in {left[text]["label"] for text in found["train"]}
        assert "rare" in {left[text]["label"] for text in found["validation"]}
        own = data.manifest.own_splits
        assert own is not None
        assert (own.column, own.validation, own.dropped) == (None, "drawn", {"train": 1})
    assert data.manifest.source["file"] == "train.csv, test.csv"


def test_a_fault_in_a_second_file_is_located_there(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows("train", 20, lambda n: n % 3 == 0))
    test = rows("test", 6, lambda n: n % 3 == 0)
    write(tmp_path / "test.csv", [*test, {**test[0], "text": "more", "label": "rear"}])
    files = "path: train.csv", "path: train.csv, test: test.csv"
    with pytest.raises(UserError, match="test.csv, line 8, field label: label 'rear' is not a"):
        built(tmp_path, "", *files)
    # The writer meets rows by id, and the first id is in the second file.
    for name, table in (("train", rows("train", 20, lambda n: n % 3 == 0)), ("test", test)):
        write(
            tmp_path / f"{name}.csv", [{**row, "id": f"{name} {n}"} for n, row in enumerate(table)]
        )
    (tmp_path / "task.yml").write_text(
        TASK.replace(*files).replace("group: group", "group: group, id: id")
    )
    with pytest.raises(UserError, match="test.csv, line 2: --max-prompt-tokens: "):
        build_task(tmp_path / "task.yml", tmp_path / "data", BuildOptions(max_prompt=1))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("data: {path: train.csv, validation: v.csv}", "names validation but no test"),
        ("split: {on_overlap: drop}", "split.on_overlap is for splits of your own"),
        ("data: {path: train.csv, test: t.csv}\nsplit: {test: 0.2}", "split.test is the size"),
        (
            "data: {path: train.csv, test: t.csv, validation: v.csv}\nsplit: {validation: 0.2}",
            "split.validation is the size",
        ),
        (
            "data: {path: train.csv, test: t.csv}\ncolumns: {text: t, label: l, split: s}",
            "data.test and columns.split both set the splits",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, keys: str, said: str) -> None:
    given = [line.partition(":")[0] + ":" for line in keys.splitlines()]
    kept = [line for line in TASK.splitlines() if not line.startswith(tuple(given))]
    (tmp_path / "task.yml").write_text("\n".join([*kept, keys]) + "\n")
    with pytest.raises(UserError, match=said):
        build_task(tmp_path / "task.yml", tmp_path / "data", BuildOptions())


def test_three_rare_rows_are_one_in_each_split_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train.csv", rows("x", 300, lambda n: n in (10, 150, 290)))
    (tmp_path / "task.yml").write_text(TASK)
    stratified = set()
    for seed in range(4):
        command = ["build", str(tmp_path / "task.yml"), "--out", str(tmp_path / "data")]
        assert main([*command, "--seed", str(seed)]) == 0
        manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
        for split in SPLITS:
            assert manifest["counts"][split]["labels"]["mine"]["2"] == 1
        said = "would leave 'rare' out of train, validation or test" in capsys.readouterr().out
        assert said == ("stratified" in manifest)
        stratified.add(said)
    assert True in stratified


def test_a_label_with_too_few_groups_is_refused_with_the_choice(tmp_path: Path) -> None:
    # Two of the three rows are of one group.
    write(tmp_path / "train.csv", rows("x", 100, lambda n: n in (10, 11, 90)))
    said = (
        r"train.csv: label 'rare' has 3 rows in 2 groups, too few to be in train, validation and "
        r"test; add rows, map it .* under `values` .*, take its rows out, or say with a column"
    )
    with pytest.raises(UserError, match=said):
        built(tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_label_that_own_splits_lack_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {"train": (20, {1, 5}), "validation": (8, {3}), "test": (8, set[int]())}
    table = [row for name, (n, rare) in parts.items() for row in rows(name, n, rare.__contains__)]
    write(tmp_path / "train.csv", table)
    data = built(tmp_path, old="group: group", new="group: group, split: part")
    assert data.absent_labels("test") == {"mine": ["rare"]}
    assert data.absent_labels("validation") == {}
    assert main(["build", str(tmp_path / "task.yml"), "--out", str(data.path)]) == 0
    printed = capsys.readouterr().out
    assert "no test row has the label 'rare', so test scores say nothing about it" in printed
    assert "no validation row" not in printed
    # A label without train rows cannot be learned.
    for row in table:
        row["part"] = {"train": "test", "test": "train"}.get(row["part"], row["part"])
    write(tmp_path / "train.csv", table)
    with pytest.raises(UserError, match="'rare' is in the train split.*with this label to train"):
        built(tmp_path, old="group: group", new="group: group, split: part")
