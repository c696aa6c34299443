"""New rows out of a file, one after the other: the same formats that a task is read from."""

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
    """What is to be labelled.

    Attributes:
        id: From its column; where that is not there or empty, its line or row in the file.
        value: What stands in the text's column; the whole row where no column is asked for.
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
        column: Where the text is; None for whole rows.
        limit: Only so many, from the first.
        identifier: The column of the id.

    Raises:
        UserError: The file is missing, empty or broken, or lacks the text's column. At the end:
            two rows have the same id.
    """
    name = column or "conversation"
    wanted = frozenset((identifier, name) if column else (identifier, name, "context"))
    rows = file_rows(path, wanted, TABLES)
    if rows.fields is not None and name not in rows.fields:
        raise UserError(_missing(name, sorted(rows.fields)), path=path)
    row = None
    # Eight bytes a row, and none where no row has an id.
    hashes = array("Q")
    for row, row_id, given in _identified(path, wanted, limit, identifier):
        assert isinstance(row.value, dict)
        if name not in row.value:
            raise row.error(LeftOut(_missing(name, sorted(row.value))))
        if given is not None:
            hashes.append(_hash(row_id))
        yield InputRow(row_id, row.value if column is None else row.value[column])
    if row is None:
        raise UserError("has no rows", path=path)
    if hashes and (again := _repeated(hashes)):
        _refuse_same(_identified(path, wanted, limit, identifier), again, identifier)


def _identified(
    path: Path, wanted: frozenset[str], limit: int | None, identifier: str
) -> Iterator[tuple[SourceRow, str, bool | None]]:
    """Rows with their id, and whether it was given; None where no row of the file has one."""
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
    """Those that stand there twice; sorts them in place."""
    ordered = np.frombuffer(hashes, dtype=np.uint64)
    ordered.sort()
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _refuse_same(
    rows: Iterator[tuple[SourceRow, str, bool | None]], again: set[int], identifier: str
) -> None:
    """Refuse two rows with the same id, of which the hashes were the same.

    Raises:
        UserError: There are two.
    """
    known: dict[str, tuple[int, bool | None]] = {}
    for row, row_id, given in rows:
        if _hash(row_id) not in again:
            continue
        number, first_given = known.setdefault(row_id, (row.number, given))
        if number == row.number:
            continue
        said = f"id {row_id!r} stands in {row.unit} {number} too"
        if not given:
            said = f"has no id and so its number, {row_id}, which is the id of {row.unit} {number}"
        elif not first_given:
            said = f"id {row_id!r} is also the number of {row.unit} {number}, which has no id"
        raise row.error(
            LeftOut(
                f"{said}; ids must be unique: change them, or name another column with --id",
                field=identifier,
            )
        )


def _missing(name: str, known: list[str]) -> str:
    return f"has no column {name!r}; {nearest(name, known)} (--text names the text's column)"
