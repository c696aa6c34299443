"""Where rows come from: local files in the formats of the datasets, and the Hub.

Lines of JSON, parquet and the Hub are streams; a ``.json`` file and a gzipped parquet file are
read whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import count_lines, is_blank, open_bytes, parse_object
from regreason_plugin.data.importer import Hub, LeftOut, Row, Rows

FORMATS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".parquet.gz")
# A row of Chatbot Arena or CoQA has some kilobytes.
_BATCH = 256
_HUB = "https://huggingface.co/datasets"


def file_rows(path: Path, read: frozenset[str]) -> Rows:
    """The rows of a local file.

    Args:
        path: The file.
        read: The fields that are wanted; a parquet file's others are not read.

    Raises:
        UserError: It is not there, or not what its name says.
    """
    if path.is_dir():
        raise UserError("is a folder; name a file in it", path=path)
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".jsonl"):
        return _lines(path)
    if name.endswith(".json"):
        return _json(path)
    if name.endswith(".parquet"):
        return _parquet(path, read)
    if not path.exists():
        raise UserError("no such file", path=path)
    raise UserError(f"has none of the endings {', '.join(FORMATS)}", path=path)


def _lines(path: Path) -> Rows:
    # Also finds a file that is not there or no gzip before anything is written.
    total = count_lines(path)
    if not total:
        raise UserError("is empty; expected one JSON object a line", path=path)

    def rows() -> Iterator[Row]:
        with open_bytes(path) as stream:
            for number, raw in enumerate(stream, start=1):
                if not is_blank(raw, number):
                    yield Row(str(path), number, _object(raw, path, number))

    return Rows(total, rows())


def _object(raw: bytes, path: Path, line: int) -> dict[str, Any] | LeftOut:
    try:
        # NaN is how Python writes a missing cell, in lines as in a .json file.
        return parse_object(raw, path, line, constant=float)
    except UserError as error:
        return LeftOut("no JSON object", error=error)
    except RecursionError:
        return LeftOut("no JSON object")


def _json(path: Path) -> Rows:
    """A list of rows, the same under ``data`` (CoQA), or lines after all."""
    with open_bytes(path) as stream:
        raw = stream.read()
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _lines(path)
        raise UserError(f"is not JSON: {error}", path=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start + 1} is not UTF-8", path=path) from None
    except RecursionError:
        raise UserError("is no list of rows: it is nested too deeply", path=path) from None
    if isinstance(value, dict):
        value = value.get("data", [value])
    if not isinstance(value, list) or not value:
        raise UserError("holds no list of rows, and none under 'data'", path=path)
    return Rows(
        len(value),
        (
            Row(
                str(path),
                number,
                row if isinstance(row, dict) else LeftOut("no JSON object"),
                unit="entry",
            )
            for number, row in enumerate(value, start=1)
        ),
    )


def _parquet(path: Path, read: frozenset[str]) -> Rows:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        if path.suffix.lower() == ".gz":
            with open_bytes(path) as stream:
                file = parquet.ParquetFile(pa.BufferReader(stream.read()))
        else:
            file = parquet.ParquetFile(path)
    except FileNotFoundError:
        raise UserError("no such file", path=path) from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"is not a parquet file: {_first_line(error)}", path=path) from None
    schema = file.schema_arrow
    there = frozenset(schema.names)
    # Chatbot Arena's moderation scores are most of its file.
    columns = sorted(there & read)
    types = {name: schema.field(name).type for name in columns}
    # (A dictionary holds the values of a column of categories.)
    types = {n: t.value_type if pa.types.is_dictionary(t) else t for n, t in types.items()}
    shortened = {
        name: np.dtype(kind.to_pandas_dtype())
        for name, kind in types.items()
        if pa.types.is_float16(kind) or pa.types.is_float32(kind)
    }

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in file.iter_batches(_BATCH, columns=columns):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(str(path), number, _shortened(value, shortened), unit="row")
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            place = f"{path}, after row {number}"
            raise UserError(f"cannot be read on: {_first_line(error)}", path=place) from None

    integers = {name for name, kind in types.items() if pa.types.is_integer(kind)}
    classes = _classes(schema.metadata or {})
    return Rows(
        file.metadata.num_rows, rows(), there, classes, frozenset(integers.difference(classes))
    )


def _classes(metadata: Mapping[bytes, bytes]) -> dict[str, Sequence[str]]:
    """The names of the classes that `datasets` writes into the schema of a file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {
        name: kind["names"]
        for name, kind in (features.items() if isinstance(features, dict) else ())
        if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and kind.get("names")
    }


def _shortened(value: dict[str, Any], columns: Mapping[str, np.dtype[Any]]) -> dict[str, Any]:
    """Floats of 16 and 32 bits as the shortest decimals that name them, as 0.1."""
    for name, kind in columns.items():
        if isinstance(value.get(name), float):
            value[name] = float(str(kind.type(value[name])))
    return value


def hub_rows(hub: Hub, split: str, option: str = "--path") -> Rows:
    """The rows of a split on the Hub, read as they are downloaded.

    Args:
        hub: The dataset.
        split: Of it.
        option: What names a local file instead, for messages.

    Raises:
        UserError: The Hub cannot be reached, the dataset is gated, or it has no such split.
    """
    from datasets import load_dataset

    name = "/".join(part for part in (hub.repository, hub.folder, split) if part)
    try:
        stream = load_dataset(
            hub.repository, hub.config, data_dir=hub.folder, split=split, streaming=True
        )
        splits = stream.info.splits or {}
        total = splits[split].num_examples if split in splits else None
    except Exception as error:  # datasets raises a dozen unrelated types here
        raise hub_error(name, hub, error, option) from error

    features = stream.info.features or {}
    classes = {name: kind.names for name, kind in features.items() if hasattr(kind, "names")}
    types = {name: str(getattr(kind, "dtype", "")) for name, kind in features.items()}
    shortened = {
        name: np.dtype(kind) for name, kind in types.items() if kind in ("float16", "float32")
    }

    def rows() -> Iterator[Row]:
        try:
            for number, value in enumerate(stream, start=1):
                yield Row(name, number, _shortened(dict(value), shortened), unit="row")
        except Exception as error:
            raise hub_error(name, hub, error, option) from error

    integers = {name for name, kind in types.items() if re.fullmatch(r"u?int\d+", kind)}
    return Rows(
        total or None,
        rows(),
        frozenset(stream.column_names or ()) or None,
        classes,
        frozenset(integers.difference(classes)),
    )


def hub_error(name: str, hub: Hub, error: Exception, option: str = "--path") -> UserError:
    """What went wrong on the Hub, and what to do about it."""
    # Some of these errors carry the one that says it as their cause.
    said = " ".join(str(part) for part in (error, error.__cause__) if part)
    gated = "gated" in said.lower() or "GatedRepo" in type(error).__name__
    if gated:
        return UserError(
            f"is gated on the Hub: accept its terms at {_HUB}/{hub.repository}, then run "
            f"`hf auth login` or set HF_TOKEN; or download the file and name it with {option}",
            path=name,
        )
    return UserError(
        f"cannot be loaded from the Hub ({_first_line(error)}); download the file from "
        f"{_HUB}/{hub.repository} and name it with {option}",
        path=name,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
