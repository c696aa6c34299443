"""Where rows come from: local files in the formats of the datasets, and the Hub.

Lines of JSON, parquet and the Hub are streams; a ``.json`` file is read whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from regreason_plugin.conversations.rows import Hub, LeftOut, Row, Rows
from regreason_plugin.errors import UserError
from regreason_plugin.jsonl import count_lines, open_bytes, parse_object

FORMATS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
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
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        return _lines(path)
    if name.endswith(".json"):
        return _json(path)
    if path.name.endswith(".parquet"):
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
                yield Row(str(path), number, _object(raw, path, number))

    return Rows(total, rows())


def _object(raw: bytes, path: Path, line: int) -> dict[str, Any] | LeftOut:
    try:
        return parse_object(raw, path, line)
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
        file = parquet.ParquetFile(path)
    except FileNotFoundError:
        raise UserError("no such file", path=path) from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"is not a parquet file: {_first_line(error)}", path=path) from None
    there = frozenset(file.schema_arrow.names)
    # Chatbot Arena's moderation scores are most of its file.
    columns = sorted(there & read)

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in file.iter_batches(_BATCH, columns=columns):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(str(path), number, value, unit="row")
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            place = f"{path}, after row {number}"
            raise UserError(f"cannot be read on: {_first_line(error)}", path=place) from None

    return Rows(file.metadata.num_rows, rows(), there)


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

    def rows() -> Iterator[Row]:
        try:
            yield from _numbered(name, stream)
        except Exception as error:
            raise hub_error(name, hub, error, option) from error

    features = stream.info.features or {}
    classes = {name: kind.names for name, kind in features.items() if hasattr(kind, "names")}
    return Rows(total or None, rows(), frozenset(stream.column_names or ()) or None, classes)


def _numbered(name: str, values: Iterable[Any]) -> Iterator[Row]:
    for number, value in enumerate(values, start=1):
        yield Row(name, number, dict(value), unit="row")


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
