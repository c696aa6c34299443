"""JSON lines: files are read as streams, errors name file and line, and writing is atomic."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pydantic import BaseModel, ValidationError

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import atomic_writer

Model = TypeVar("Model", bound=BaseModel)
# The keys and list indices that lead to a field in nested mappings and lists.
Location = tuple[int | str, ...]
# Fields whose values are left out of messages: they may be keys, or addresses with passwords.
_SECRET = re.compile(r"key|secret|password|authori[sz]ation|url", re.IGNORECASE)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON allows")


def parse_object(
    raw: bytes, path: Path, line: int, constant: Callable[[str], object] = _no_constant
) -> dict[str, Any]:
    """Parse one line into a JSON object.

    Args:
        raw: The bytes of the line; the first line may begin with a byte order mark.
        path: The file, for messages.
        line: The line's number, counted from 1.
        constant: Converts the names NaN, Infinity and -Infinity, which JSON does not allow, to
            values; by default it raises an error.

    Raises:
        UserError: The line is not UTF-8, not JSON (incomplete, or with NaN), or not an object.
    """
    try:
        text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
        value = json.loads(text, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise UserError(
            f"byte {error.start + 1} is not UTF-8; save the file as UTF-8", path=path, line=line
        ) from None
    except ValueError as error:
        cut_off = (
            "" if raw.endswith(b"\n") else " (the last line has no line end: is the file cut off?)"
        )
        raise UserError(f"not a JSON object: {error}{cut_off}", path=path, line=line) from None
    if not isinstance(value, dict):
        raise UserError("not a JSON object", path=path, line=line)
    return value


def validate(
    model: type[Model],
    value: dict[str, Any],
    path: Path | str,
    line: int | Callable[[Location], int] | None = None,
    declaration: Declaration | None = None,
) -> Model:
    """Build a record from its fields.

    Args:
        model: The record's type.
        value: The record's fields.
        path: The file, or a place in it, for messages.
        line: The line's number, or a function that returns it for a field.
        declaration: The task whose datasets, axes and labels a record may name; None for records
            without such names.

    Raises:
        UserError: A field is wrong; the message names the first such field and its line.
    """
    try:
        return model.model_validate(value, context={"declaration": declaration})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        wrong = first["input"]
        field = ".".join(str(part) for part in first["loc"])
        line = line(first["loc"]) if callable(line) else line
        if isinstance(wrong, str | int | float | None) and not _SECRET.search(field):
            message += f" (got {str(wrong)[:60]!r})"
        raise UserError(message, path=path, line=line, field=field) from None


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzipped file for reading.

    Raises:
        UserError: The file is missing, is a folder, or ends in ``.gz`` and is not a whole gzip
            file.
    """
    try:
        with ExitStack() as stack:
            if path.suffix.lower() == ".gz":
                yield cast(BinaryIO, stack.enter_context(gzip.open(path, "rb")))
            else:
                yield stack.enter_context(path.open("rb"))
    except FileNotFoundError:
        raise UserError("no such file", path=path) from None
    except IsADirectoryError:
        raise UserError("is a folder; name a file in it", path=path) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"not a whole gzip file: {error}", path=path) from None


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream a file's objects; blank lines are skipped.

    Yields:
        The line's number, counted from 1, and the object.

    Raises:
        UserError: The file is missing or empty, or a line is not a JSON object.
    """
    empty = True
    with open_bytes(path) as stream:
        for number, raw in enumerate(stream, start=1):
            if not is_blank(raw, number):
                empty = False
                yield number, parse_object(raw, path, number)
    if empty:
        raise UserError("is empty; expected one JSON object per line", path=path)


def is_blank(raw: bytes, line: int) -> bool:
    """Whether a line holds nothing but white space and a byte order mark."""
    return not (raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw).strip()


def count_lines(path: Path) -> int:
    """The number of lines that are not blank, for a progress bar.

    Raises:
        UserError: The file cannot be read (`open_bytes`).
    """
    with open_bytes(path) as stream:
        return sum(not is_blank(raw, number) for number, raw in enumerate(stream, start=1))


def read_records(
    path: Path,
    model: type[Model],
    *,
    unique: bool = True,
    declaration: Declaration | None = None,
) -> Iterator[Model]:
    """Stream a file's records; each is checked before it is yielded.

    Args:
        path: A ``.jsonl`` file, gzipped or not.
        model: The record's type.
        unique: Whether to refuse a second record with the same id, or with the same id and axis
            if the records have an axis.
        declaration: The task whose datasets, axes and labels the records may name (`validate`).

    Raises:
        UserError: A record is wrong; the message names file, line and field.
    """
    seen: dict[tuple[str, str], int] = {}
    for number, value in read_objects(path):
        record = validate(model, value, path, number, declaration)
        if unique:
            check_unique(seen, value, path, number)
        yield record


def check_unique(
    seen: dict[tuple[str, str], int], value: dict[str, Any], path: Path, line: int
) -> None:
    """Check that no earlier line has the same id and axis, and add them to ``seen``.

    Raises:
        UserError: An earlier line has the same id and axis.
    """
    key = (value["id"], value.get("axis", ""))
    if key in seen:
        also = f" and axis {key[1]!r}" if key[1] else ""
        raise UserError(
            f"id {key[0]!r}{also} is also on line {seen[key]}; ids must be unique",
            path=path,
            line=line,
            field="id",
        )
    seen[key] = line


def dumps(value: dict[str, Any]) -> str:
    """Serialise an object as one line of JSON, in the form that all our files have."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def write_records(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records to a file, whole or not at all.

    Returns:
        The number of records.
    """
    count = 0
    with atomic_writer(path) as stream:
        for record in records:
            stream.write(dumps(record.model_dump(exclude_none=True)).encode("utf-8") + b"\n")
            count += 1
    return count
