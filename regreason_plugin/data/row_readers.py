"""Reads the rows of local files, in all supported formats, and of datasets on the Hub.

JSON lines, CSV, parquet and the Hub are streamed. A ``.json`` file and a gzipped parquet file are
read into memory as a whole.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import count_lines, is_blank, open_bytes, parse_object
from regreason_plugin.data.source_rows import HubDataset, LeftOut, SourceRow, SourceRows

FORMATS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".parquet.gz")
CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
# The endings of tables, in lower or upper case.
TABLES = (*CSV, *FORMATS)
DELIMITERS = ",;\t|"
# The longest field, in characters: a quote that is never closed makes the rest of a file one field.
_LONGEST = 10_000_000
# Rows per parquet batch; a row of Chatbot Arena or CoQA has a few kilobytes.
_BATCH = 256
_HUB = "https://huggingface.co/datasets"


def file_rows(path: Path, wanted: frozenset[str], endings: tuple[str, ...] = FORMATS) -> SourceRows:
    """The rows of a local file.

    Args:
        path: A CSV file with a header, lines of JSON, a list of JSON objects, or parquet; each may
            be gzipped.
        wanted: The fields to read. Other columns of a parquet file are skipped.
        endings: The endings that the file's name may have.

    Raises:
        UserError: The file does not exist, or its content does not match its ending.
    """
    name = path.name.lower()
    if path.is_dir():
        raise UserError("is a folder; name a file in it", path=path)
    if not name.endswith(endings):
        if not path.exists():
            raise UserError("no such file", path=path)
        raise UserError(f"has to end with one of {', '.join(endings)}", path=path)
    if name.endswith(CSV):
        return _csv(path, wanted)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _lines(path)
    return _json(path) if name.endswith((".json", ".json.gz")) else _parquet(path, wanted)


def _lines(path: Path) -> SourceRows:
    # Counting also finds a missing file or a broken gzip before anything is written.
    total = count_lines(path)
    if not total:
        raise UserError("is empty; expected one JSON object per line", path=path)

    def rows() -> Iterator[SourceRow]:
        with open_bytes(path) as stream:
            for number, raw in enumerate(stream, start=1):
                if not is_blank(raw, number):
                    yield SourceRow(str(path), number, _object(raw, path, number))

    return SourceRows(total, rows())


def _object(raw: bytes, path: Path, line: int) -> dict[str, Any] | LeftOut:
    try:
        # Python writes a missing cell as NaN, in JSON lines and in .json files.
        return parse_object(raw, path, line, constant=float)
    except UserError as error:
        return LeftOut("not a JSON object", error=error)
    except RecursionError:
        return LeftOut("not a JSON object")


def _json(path: Path) -> SourceRows:
    """Read a list of rows, a list under ``data`` (CoQA), or JSON lines despite the ending."""
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
        raise UserError("is nested too deeply to be a list of rows", path=path) from None
    if isinstance(value, dict):
        value = value.get("data", [value])
    if not isinstance(value, list) or not value:
        raise UserError("has no list of rows, neither at the top nor under 'data'", path=path)
    return SourceRows(
        len(value),
        (
            SourceRow(
                str(path),
                number,
                row if isinstance(row, dict) else LeftOut("not a JSON object"),
                unit="entry",
            )
            for number, row in enumerate(value, start=1)
        ),
    )


def _parquet(path: Path, wanted: frozenset[str]) -> SourceRows:
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
    # Unused columns are skipped: the moderation scores are most of Chatbot Arena's file.
    columns = sorted(wanted.intersection(schema.names))
    types = _types(schema)

    def rows() -> Iterator[SourceRow]:
        number = 0
        try:
            for batch in file.iter_batches(_BATCH, columns=columns):
                for value in batch.to_pylist():
                    number += 1
                    yield SourceRow(str(path), number, types.shortened(value), unit="row")
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            place = f"{path}, after row {number}"
            raise UserError(f"cannot be read further: {_first_line(error)}", path=place) from None

    return SourceRows(
        file.metadata.num_rows, rows(), frozenset(schema.names), types.classes, types.integers
    )


class _Types(NamedTuple):
    """The columns that a schema declares: see `SourceRows`; and the types of short floats."""

    classes: Mapping[str, Sequence[str]] = {}
    integers: frozenset[str] = frozenset()
    short_floats: Mapping[str, np.dtype[Any]] = {}

    def shortened(self, value: dict[str, Any]) -> dict[str, Any]:
        """Replace floats of 16 and 32 bits by their shortest decimals, such as 0.1."""
        for name, kind in self.short_floats.items():
            if isinstance(value.get(name), float):
                value[name] = float(str(kind.type(value[name])))
        return value


def _types(schema: Any) -> _Types:
    import pyarrow as pa

    classes = _classes(schema.metadata or {})
    # A column of categories is a dictionary of its values.
    types = {
        field.name: field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        for field in schema
    }
    integers = {name for name, kind in types.items() if pa.types.is_integer(kind)}
    short_floats = {
        name: np.dtype(kind.to_pandas_dtype())
        for name, kind in types.items()
        if pa.types.is_float16(kind) or pa.types.is_float32(kind)
    }
    return _Types(classes, frozenset(integers.difference(classes)), short_floats)


def _classes(metadata: Mapping[bytes, bytes]) -> dict[str, Sequence[str]]:
    """The class names of each column, which `datasets` writes into a file's schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {
        name: kind["names"]
        for name, kind in (features.items() if isinstance(features, dict) else ())
        if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and kind.get("names")
    }


def hub_rows(hub: HubDataset, split: str, option: str = "--path") -> SourceRows:
    """The rows of a split on the Hub, streamed while they are downloaded.

    Args:
        hub: The dataset.
        split: The name of the split.
        option: The option that names a local file instead, for messages.

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
    except Exception as error:  # datasets raises a dozen unrelated types of errors here
        raise hub_error(name, hub, error, option) from error

    features = stream.info.features
    types = _types(features.arrow_schema) if features else _Types()

    def rows() -> Iterator[SourceRow]:
        try:
            for number, value in enumerate(stream, start=1):
                yield SourceRow(name, number, types.shortened(dict(value)), unit="row")
        except Exception as error:
            raise hub_error(name, hub, error, option) from error

    fields = frozenset(stream.column_names or ()) or None
    return SourceRows(total or None, rows(), fields, types.classes, types.integers)


def hub_error(name: str, hub: HubDataset, error: Exception, option: str = "--path") -> UserError:
    """An error message about the Hub that says what to do."""
    # Some errors say only in their cause that the dataset is gated.
    text = " ".join(str(part) for part in (error, error.__cause__) if part)
    gated = "gated" in text.lower() or "GatedRepo" in type(error).__name__
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


def _csv(path: Path, wanted: frozenset[str]) -> SourceRows:
    """The rows of a CSV file with a header, gzipped or not.

    The delimiter is the one of `DELIMITERS` with which the header has the most wanted columns.
    (`csv.Sniffer` guesses from the texts, and sometimes chooses a letter.)

    Raises:
        UserError: The file is missing, empty or not UTF-8, or its header names a column twice.
    """
    header, delimiter = _header(path, wanted)

    def rows() -> Iterator[SourceRow]:
        csv.field_size_limit(_LONGEST)
        with open_bytes(path) as stream:
            reader = csv.reader(_text_lines(stream, path), delimiter=delimiter, strict=True)
            line = 1
            try:
                for number, fields in enumerate(reader):
                    if number and fields:
                        _check_width(fields, header, path, line)
                        yield SourceRow(str(path), line, dict(zip(header, fields, strict=True)))
                    line = reader.line_num + 1
            except csv.Error as error:
                raise UserError(f"is not a row of CSV: {error}", path=path, line=line) from None

    return SourceRows(None, rows(), frozenset(header))


def _header(path: Path, wanted: frozenset[str]) -> tuple[list[str], str]:
    best: tuple[int, int, list[str], str] | None = None
    for delimiter in DELIMITERS:
        with open_bytes(path) as stream:
            try:
                header = next(csv.reader(_text_lines(stream, path), delimiter=delimiter), None)
            except csv.Error as error:
                raise UserError(f"is not a row of CSV: {error}", path=path, line=1) from None
        if not header:
            raise UserError("is empty; expected a header and a row for each text", path=path)
        names = [name.strip() for name in header]
        matches = len(wanted.intersection(names))
        if best is None or (matches, len(names)) > best[:2]:
            best = (matches, len(names), names, delimiter)
    assert best is not None
    _, _, names, delimiter = best
    for name in names:
        if name in wanted and names.count(name) > 1:
            raise UserError(f"has two columns {name!r}; rename one", path=path, line=1)
    return names, delimiter


def _text_lines(stream: Iterator[bytes], path: Path) -> Iterator[str]:
    for number, raw in enumerate(stream, start=1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"byte {error.start + 1} is not UTF-8; save the file as UTF-8",
                path=path,
                line=number,
            ) from None


def _check_width(fields: list[str], header: list[str], path: Path, line: int) -> None:
    if len(fields) != len(header):
        raise UserError(
            f"has {len(fields)} fields, but the header has {len(header)}; put quotes around a "
            "text that contains a delimiter or a line end",
            path=path,
            line=line,
        )
