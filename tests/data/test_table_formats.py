"""One table in every supported format gives the same task, ids, groups, labels and prompts.

Tables in text formats are files in ``tests/data/tables``; binary ones are made here from the same
cells. The expected values in ``expected.yml`` were written by hand, not by code of the package.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from regreason_plugin.cli import main
from regreason_plugin.core.task_file import read_task
from regreason_plugin.data_folder.build import BuildOptions, build_task
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.predict.input_rows import read_rows
from regreason_plugin.predict.prediction_task import find_question

pytestmark = pytest.mark.integration

TABLES = Path(__file__).parents[1] / "data" / "tables"
EXPECTED = yaml.safe_load((TABLES / "expected.yml").read_text(encoding="utf-8"))
TINY = str(Path(__file__).parents[2] / "axolotl_configs" / "cpu" / "tiny-base")
TEXTS = sorted(str(path.relative_to(TABLES)) for path in TABLES.glob("*/*.*"))
COLUMNS = ("id", "text", "label", "group")
CLASSES = ("neutral", "negative", "positive")

Cells = dict[str, list[Any]]


def cells(table: str, name: str) -> Cells:
    """The columns of a table, as read from its JSON lines."""
    text = (TABLES / table / name).read_text(encoding="utf-8-sig")
    rows = [json.loads(line) for line in text.splitlines() if line]
    return {column: [row[column] for row in rows] for column in COLUMNS}


def packed(columns: Cells, types: dict[str, pa.DataType], metadata: Any = None) -> bytes:
    """The bytes of a parquet file; columns that are not in ``types`` have texts."""
    arrays = {
        name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()
    }
    stream = io.BytesIO()
    table = pa.table(arrays)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    parquet.write_table(table, stream)
    return stream.getvalue()


def whole(values: list[Any], make: Any) -> list[Any]:
    return [None if value is None else make(value) for value in values]


def as_numbers(kind: pa.DataType, make: Any) -> bytes:
    """The table ``scale`` with a type for its three columns of numbers."""
    table = cells("scale", "integers.jsonl")
    for name in ("id", "label", "group"):
        table[name] = whole(table[name], make)
    return packed(table, dict.fromkeys(("id", "label", "group"), kind))


def as_classes(table: Cells) -> bytes:
    """Labels as `datasets` writes classes: as numbers, with their names in the schema."""
    table["label"] = [-1 if value is None else CLASSES.index(value) for value in table["label"]]
    kind = {"names": [*CLASSES], "_type": "ClassLabel"}
    return packed(table, {"label": pa.int64()}, {"info": {"features": {"label": kind}}})


def dictionary(values: list[Any]) -> pa.Array:
    return pa.array(values).dictionary_encode()


def made() -> Iterator[tuple[str, str, bytes]]:
    """Tables in other formats than text: the table, the name of the file, its content."""
    scale, names = cells("scale", "pandas.jsonl"), cells("classes", "names.jsonl")
    yield "scale", "int64.parquet", as_numbers(pa.int64(), int)
    yield "scale", "uint8.PARQUET", as_numbers(pa.uint8(), int)
    yield "scale", "float64.parquet", as_numbers(pa.float64(), float)
    yield "scale", "float32.parquet.gz", gzip.compress(as_numbers(pa.float32(), float))
    yield "scale", "decimal.parquet", as_numbers(pa.decimal128(9, 2), Decimal)
    yield "scale", "texts.parquet", as_numbers(pa.string(), lambda value: f"{value}.0")
    yield "scale", "bytes.parquet", as_numbers(pa.binary(), lambda value: b"%d" % value)
    stream = io.BytesIO()
    parquet.write_table(pa.table({name: dictionary(scale[name]) for name in COLUMNS}), stream)
    yield "scale", "dictionary.parquet", stream.getvalue()
    for table, name in (
        *(("scale", name) for name in ("pandas.csv", "integers.jsonl", "pandas.tsv", "list.json")),
        ("truths", "lines.jsonl"),
    ):
        raw = (TABLES / table / name).read_bytes()
        yield table, f"{name}.gz", gzip.compress(raw)
        yield table, name.upper(), raw
        yield table, f"{name}.gz".upper(), gzip.compress(raw)
    truths = cells("truths", "lines.jsonl")
    yield "truths", "bool.parquet", packed(truths, {"label": pa.bool_()})
    yield "classes", "names.parquet", packed(names, {})
    yield "classes", "bytes.parquet", packed(names, dict.fromkeys(COLUMNS, pa.large_binary()))
    yield "classes", "classes.parquet", as_classes(names)
    versions = cells("versions", "numbers.jsonl")
    numbers = ("label", "group")
    for name, kind in (("float64", pa.float64()), ("float32", pa.float32())):
        yield "versions", f"{name}.parquet", packed(versions, dict.fromkeys(numbers, kind))
    versions |= {name: whole(versions[name], lambda v: Decimal(str(v))) for name in numbers}
    decimals = packed(versions, dict.fromkeys(numbers, pa.decimal128(9, 1)))
    yield "versions", "decimal.parquet", decimals


MADE = {f"{table}/{name}": content for table, name, content in made()}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row_id(text: str) -> str:
    return "text-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def new(data: str) -> None:
    columns = [word for name in COLUMNS for word in (f"--{name}", name)]
    assert main(["task", "new", "mine", "--data", data, *columns, "--model", TINY]) == 0


def check(table: str) -> None:
    """Compare the task in ``mine``, and the data built from it, with the expected values."""
    expected = EXPECTED[table]
    task = read_task(Path("mine/task.yml"))
    assert (list(task.labels), task.ordinal) == (expected["labels"], expected["ordinal"])
    folder, _ = build_task(Path("mine/task.yml"), Path("data"), BuildOptions())
    assert sorted(built(folder)) == sorted(
        (
            row_id(text) if given is None else given,
            row_id(text) if group is None else group,
            f"{text}\n\nGive the text's {expected['asked']}.\nAnswer:",
            expected["labels"].index(label) + 1,
        )
        for given, group, text, label in expected["rows"]
    )


def built(folder: DataFolder) -> list[tuple[str, str, str, int]]:
    names = ("train/label_only.jsonl", "validation/label_only.jsonl", "test.jsonl")
    rows = [row for name in names for row in folder.rows(name)]
    return [(row.id, row.group, row.messages[0].content, row.label) for row in rows]


@pytest.mark.parametrize("name", [*TEXTS, *MADE])
def test_one_task_whatever_it_is_stored_in(name: str, place: Path) -> None:
    path = TABLES / name
    if name in MADE:
        path = place / Path(name).name
        path.write_bytes(MADE[name])
    table = Path(name).parent.name
    new(str(path))
    check(table)
    # Prediction reads the same ids and texts; only a row without an id gets its number.
    question = find_question(None, Path("mine/task.yml"))
    rows = list(read_rows(path, "text"))
    found = {row.id: question.conversation(row.value).conversation[0].content for row in rows}
    wanted = {given: text for given, _, text, _ in EXPECTED[table]["rows"] if given is not None}
    assert {given: found[given] for given in wanted} == wanted
    assert len(found) == len(rows) == 12


def on_hub(name: str) -> datasets.Dataset:
    if name == "classes":
        table = cells("classes", "names.jsonl")
        table["label"] = [-1 if v is None else CLASSES.index(v) for v in table["label"]]
        kind: Any = datasets.ClassLabel(names=[*CLASSES])
        texts = {column: datasets.Value("string") for column in COLUMNS}
        return datasets.Dataset.from_dict(table, datasets.Features({**texts, "label": kind}))
    file = {"scale": "pandas.jsonl", "truths": "lines.jsonl", "versions": "numbers.jsonl"}[name]
    table = cells(name, file)
    if name != "versions":
        return datasets.Dataset.from_dict(table)
    kinds = {column: datasets.Value("string") for column in COLUMNS}
    kinds |= {"label": datasets.Value("float32"), "group": datasets.Value("float16")}
    return datasets.Dataset.from_dict(table, datasets.Features(kinds))


@pytest.mark.parametrize("name", EXPECTED)
def test_one_task_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_hub(name).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream)
    new("org/name")
    check(name)
