"""Streams the rows that are to be labelled from a file, in any format that a task can have."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.data.cells import Kind, find_kinds, read_as, written
from regreason_plugin.data.row_readers import TABLES, file_rows
from regreason_plugin.data.source_rows import LeftOut, SourceRow

ID = "id"


class InputRow(NamedTuple):
    """A row that is to be labelled.

    Attributes:
        id: The cell of the id column; if it is empty or there is no such column, the number of
            the row's line or row in the file.
        value: The cell of the text column; the whole row if no column was named.
    """

    id: str
    value: Any


def read_rows(
    path: Path, column: str | None, limit: int | None = None, identifier: str = ID
) -> Iterator[InputRow]:
    """Stream a file's rows.

    Args:
        path: A CSV file with a header, lines of JSON, a list of JSON objects, or parquet; each may
            be gzipped.
        column: The name of the text column; None for whole rows.
        limit: The number of rows to read, from the first; None for all.
        identifier: The name of the id column.

    Raises:
        UserError: The file is missing, empty or broken, or has no text column. After the last
            row: two rows have the same id.
    """
    name = column or "conversation"
    wanted = frozenset((identifier, name) if column else (identifier, name, "context"))
    rows = file_rows(path, wanted, TABLES)
    if rows.fields is not None and name not in rows.fields:
        raise UserError(_missing(name, sorted(rows.fields)), path=path)
    row = None
    # Eight bytes per id are enough to find ids that may be equal.
    hashes = array("Q")
    for row, row_id, has_id in _identified(path, wanted, limit, identifier):
        assert isinstance(row.value, dict)
        if name not in row.value:
            raise row.error(LeftOut(_missing(name, sorted(row.value))))
        if has_id is not None:
            hashes.append(_hash(row_id))
        yield InputRow(row_id, row.value if column is None else row.value[column])
    if row is None:
        raise UserError("has no rows", path=path)
    if hashes and (repeated := _repeated(hashes)):
        _refuse_repeated_ids(_identified(path, wanted, limit, identifier), repeated, identifier)


def _identified(
    path: Path, wanted: frozenset[str], limit: int | None, identifier: str
) -> Iterator[tuple[SourceRow, str, bool | None]]:
    """Yield each row, its id, and whether the id column holds it (None if no row has an id)."""
    rows = file_rows(path, wanted, TABLES)
    kinds = find_kinds(rows, [identifier], lambda: file_rows(path, wanted, TABLES), limit)
    kind = kinds[identifier]
    for row in islice(rows.rows, limit):
        if isinstance(row.value, LeftOut):
            raise row.error(row.value)
        row_id = ""
        if kind is not Kind.EMPTY:
            try:
                cell = written(row.value.get(identifier), rows.classes.get(identifier, ()))
            except ValueError as error:
                raise row.error(LeftOut(str(error), field=identifier)) from None
            row_id = read_as(kind, cell)
        yield row, row_id or str(row.number), None if kind is Kind.EMPTY else bool(row_id)


def _hash(row_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(row_id.encode(), digest_size=8).digest(), "big")


def _repeated(hashes: array[int]) -> set[int]:
    """The hashes that occur more than once. Sorts ``hashes`` in place."""
    ordered = np.frombuffer(hashes, dtype=np.uint64)
    ordered.sort()
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _refuse_repeated_ids(
    rows: Iterator[tuple[SourceRow, str, bool | None]], repeated: set[int], identifier: str
) -> None:
    """Refuse two rows with the same id.

    Args:
        rows: As `_identified` yields them.
        repeated: The hashes that more than one row has; only ids with such a hash are compared.
        identifier: The name of the id column.

    Raises:
        UserError: Two rows have the same id.
    """
    known: dict[str, tuple[int, bool | None]] = {}
    for row, row_id, has_id in rows:
        if _hash(row_id) not in repeated:
            continue
        number, first_has_id = known.setdefault(row_id, (row.number, has_id))
        if number == row.number:
            continue
        reason = f"id {row_id!r} is also the id of {row.unit} {number}"
        if not has_id:
            reason = (
                f"has no id and gets its number, {row_id}, which is the id of {row.unit} {number}"
            )
        elif not first_has_id:
            reason = f"id {row_id!r} is also the number of {row.unit} {number}, which has no id"
        raise row.error(
            LeftOut(
                f"{reason}; ids must be unique: change them, or name another column with --id",
                field=identifier,
            )
        )


def _missing(name: str, known: list[str]) -> str:
    return f"has no column {name!r}; {nearest(name, known)} (name the text column with --text)"
