"""New rows out of a file, one after the other: the same formats that a task is read from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.conversations.rows import LeftOut
from regreason_plugin.conversations.sources import FORMATS, file_rows
from regreason_plugin.errors import UserError, nearest
from regreason_plugin.labelled.csv_rows import csv_rows
from regreason_plugin.labelled.table import CSV

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
        path: A CSV file with a header, lines of JSON or parquet; ``.gz`` may follow the first two.
        column: Where the text is; None for whole rows.
        limit: Only so many, from the first.
        identifier: The column of the id.

    Raises:
        UserError: The file is missing, empty or broken, or lacks the text's column.
    """
    name = column or "conversation"
    wanted = frozenset((identifier, name) if column else (identifier, name, "context"))
    if path.name.lower().endswith(CSV):
        rows = csv_rows(path, wanted)
    elif path.is_file() and not path.name.endswith(FORMATS):
        raise UserError(f"has none of the endings {', '.join((*CSV, *FORMATS))}", path=path)
    else:
        rows = file_rows(path, wanted)
    if rows.fields is not None and name not in rows.fields:
        raise UserError(_missing(name, sorted(rows.fields)), path=path)
    row = None
    for row in islice(rows.rows, limit):
        if isinstance(row.value, LeftOut):
            raise row.error(row.value)
        if name not in row.value:
            raise row.error(LeftOut(_missing(name, sorted(row.value))))
        given = row.value.get(identifier)
        known = str(row.number) if given is None or given == "" else str(given)
        yield InputRow(known, row.value if column is None else row.value[column])
    if row is None:
        raise UserError("has no rows", path=path)


def _missing(name: str, known: list[str]) -> str:
    return f"has no column {name!r}; {nearest(name, known)} (--text names the text's column)"
