"""JSON lines: read as a stream with places in every error, written whole or not at all."""

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
# A field in nested mappings and lists.
Location = tuple[int | str, ...]
# Fields whose value no message repeats: it may be a key, or an address with a password in it.
_SECRET = re.compile(r"key|secret|password|authori[sz]ation|url", re.IGNORECASE)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def parse_object(
    raw: bytes, path: Path, line: int, constant: Callable[[str], object] = _no_constant
) -> dict[str, Any]:
    """Parse one line into a JSON object.

    Args:
        raw: The line; a byte order mark may begin the first one.
        path: The file, for messages.
        line: Of the file.
        constant: What NaN and Infinity, which JSON does not have, become; refused by default.

    Raises:
        UserError: Not UTF-8, not JSON (half a line, NaN), or not an object.
    """
    try:
        text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
        value = json.loads(text, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise UserError(
            f"byte {error.start + 1} is not UTF-8; save the file as UTF-8", path=path, line=line
        ) from None
    except ValueError as error:
        half = "" if raw.endswith(b"\n") else " (the last line has no end: is the file cut off?)"
        raise UserError(f"not a JSON object: {error}{half}", path=path, line=line) from None
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
    """Build the record, or say which field of which line is wrong.

    Args:
        model: Its type.
        value: Its fields.
        path: The file, or a place in it, for messages.
        line: Of the file; or gives it for a field.
        declaration: Whose names and labels a record may have; None for records without any.

    Raises:
        UserError: The first thing that is wrong.
    """
    try:
        return model.model_validate(value, context={"declaration": declaration})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        given = first["input"]
        field = ".".join(str(part) for part in first["loc"])
        line = line(first["loc"]) if callable(line) else line
        if isinstance(given, str | int | float | None) and not _SECRET.search(field):
            message += f" (got {str(given)[:60]!r})"
        raise UserError(message, path=path, line=line, field=field) from None


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzipped file for reading.

    Raises:
        UserError: It is not there, or not what its name says.
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


def read_objects(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Stream a file's objects; lines of white space alone are passed over.

    Yields:
        Line number from 1, byte offset of the line, and the object.

    Raises:
        UserError: Missing or empty file, or a line that is no JSON object.
    """
    offset = 0
    found = False
    with open_bytes(path) as stream:
        for number, raw in enumerate(stream, start=1):
            if not is_blank(raw, number):
                found = True
                yield number, offset, parse_object(raw, path, number)
            offset += len(raw)
    if not found:
        raise UserError("is empty; expected one JSON object a line", path=path)


def is_blank(raw: bytes, line: int) -> bool:
    """Whether a line holds nothing: white space alone, or a file's byte order mark."""
    return not (raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw).strip()


def count_lines(path: Path) -> int:
    """The number of lines that hold something, for a progress bar.

    Raises:
        UserError: As `open_bytes`.
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
    """Stream a file's records, checked one by one.

    Args:
        path: A ``.jsonl`` file, gzipped or not.
        model: The record's type.
        unique: Refuse a second record with the same id (and axis, where it has one).
        declaration: As of `validate`.

    Raises:
        UserError: With file, line and field.
    """
    seen: dict[tuple[str, str], int] = {}
    for number, _, value in read_objects(path):
        record = validate(model, value, path, number, declaration)
        if unique:
            check_unique(seen, value, path, number)
        yield record


def check_unique(
    seen: dict[tuple[str, str], int], value: dict[str, Any], path: Path, line: int
) -> None:
    """Remember an id (with its axis), or refuse the second one.

    Raises:
        UserError: The same id stood on an earlier line.
    """
    key = (value["id"], value.get("axis", ""))
    if key in seen:
        also = f" and axis {key[1]!r}" if key[1] else ""
        raise UserError(
            f"id {key[0]!r}{also} stands on line {seen[key]} too; ids must be unique",
            path=path,
            line=line,
            field="id",
        )
    seen[key] = line


def dumps(value: dict[str, Any]) -> str:
    """One JSON object on one line, as every file here has it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def write_records(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records to a file, whole or not at all.

    Returns:
        How many there were.
    """
    count = 0
    with atomic_writer(path) as stream:
        for record in records:
            stream.write(dumps(record.model_dump(exclude_none=True)).encode("utf-8") + b"\n")
            count += 1
    return count
