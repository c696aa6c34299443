"""The rows of a CSV file, one at a time, each with the line it starts on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import open_bytes
from regreason_plugin.data.importer import Row, Rows

DELIMITERS = ",;\t|"
# A quote that is never closed makes one field of the rest of a file.
_LONGEST = 10_000_000


def csv_rows(path: Path, wanted: frozenset[str]) -> Rows:
    """The rows of a file with a header; gzipped or not.

    The delimiter is the one of `DELIMITERS` that gives the header most of the wanted columns.
    `csv.Sniffer` guesses from the texts instead, and takes a letter for it at times.

    Raises:
        UserError: The file is not there, empty or no UTF-8, or its header names a column twice.
    """
    header, delimiter = _header(path, wanted)

    def rows() -> Iterator[Row]:
        csv.field_size_limit(_LONGEST)
        with open_bytes(path) as stream:
            reader = csv.reader(_lines(stream, path), delimiter=delimiter, strict=True)
            line = 1
            try:
                for number, fields in enumerate(reader):
                    if number and fields:
                        _check_width(fields, header, path, line)
                        yield Row(str(path), line, dict(zip(header, fields, strict=True)))
                    line = reader.line_num + 1
            except csv.Error as error:
                raise UserError(f"is no row of CSV: {error}", path=path, line=line) from None

    return Rows(None, rows(), frozenset(header))


def _header(path: Path, wanted: frozenset[str]) -> tuple[list[str], str]:
    best: tuple[int, int, list[str], str] | None = None
    for delimiter in DELIMITERS:
        with open_bytes(path) as stream:
            try:
                header = next(csv.reader(_lines(stream, path), delimiter=delimiter), None)
            except csv.Error as error:
                raise UserError(f"is no row of CSV: {error}", path=path, line=1) from None
        if not header:
            raise UserError("is empty; expected a header and a row for each text", path=path)
        names = [name.strip() for name in header]
        found = len(wanted.intersection(names))
        if best is None or (found, len(names)) > best[:2]:
            best = (found, len(names), names, delimiter)
    assert best is not None
    _, _, names, delimiter = best
    for name in names:
        if name in wanted and names.count(name) > 1:
            raise UserError(f"has two columns {name!r}; rename one", path=path, line=1)
    return names, delimiter


def _lines(stream: Iterator[bytes], path: Path) -> Iterator[str]:
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
            f"has {len(fields)} fields and the header {len(header)}; put quotes around a text "
            "that holds a delimiter or a line end",
            path=path,
            line=line,
        )
