"""Opens the tables of a task, which are read one after the other as if they were one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.splits import Split
from regreason_plugin.core.task_file import Columns, Data
from regreason_plugin.data.row_readers import TABLES, file_rows, hub_rows
from regreason_plugin.data.source_rows import HubDataset, LeftOut, SourceRow, SourceRows

# A column counts as missing if none of the first 100 JSON objects has its key.
_LOOKED_AT = 100


def open_tables(data: Data, columns: Columns, option: str) -> SourceRows:
    """The rows of all tables, after a check that each table has every column.

    Args:
        data: The tables.
        columns: The columns to read.
        option: The option that names a local file instead of a Hub dataset, for messages.

    Raises:
        UserError: A table cannot be opened, lacks a column, or numbers the classes of a column
            in another way than the first table.
    """
    named = columns.named()
    opened = [
        (table, split, _checked(table, columns, _opened(table, columns, option)))
        for split, table in data.tables()
    ]
    (_, _, first), *others = opened
    classes = {name: first.classes[name] for name in named.values() if name in first.classes}
    for table, _, rows in others:
        for name in named.values():
            if rows.classes.get(name) != first.classes.get(name):
                raise UserError(
                    f"numbers other classes than {data}; write the names of the classes into both",
                    path=str(table),
                    field=name,
                )
    return SourceRows(
        total=None,
        rows=chain.from_iterable(_of_split(rows, split) for _, split, rows in opened),
        classes=classes,
        integers=frozenset.intersection(*(rows.integers for _, _, rows in opened)),
    )


def _of_split(rows: SourceRows, split: Split | None) -> Iterator[SourceRow]:
    return (row._replace(split=split) for row in rows.rows) if split else rows.rows


def _opened(data: Data, columns: Columns, option: str) -> SourceRows:
    if data.path is not None:
        return file_rows(data.path, frozenset(columns.named().values()), TABLES)
    assert data.hub is not None
    return hub_rows(HubDataset(data.hub, data.config), data.split, option)


def _checked(data: Data, columns: Columns, rows: SourceRows) -> SourceRows:
    first = []
    fields = rows.fields
    if fields is None:
        first = list(islice(rows.rows, _LOOKED_AT))
        fields = frozenset(chain(*(row.value for row in first if isinstance(row.value, dict))))
        if not fields and first and isinstance(first[0].value, LeftOut):
            raise first[0].error(first[0].value)
    for what, name in columns.named().items():
        if name not in fields:
            raise UserError(
                f"has no column {name!r} for the {what}; {nearest(name, sorted(fields))}",
                path=str(data),
            )
    return rows._replace(rows=chain(first, rows.rows))
