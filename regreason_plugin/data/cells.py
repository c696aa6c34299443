"""Reads the cells of a table as text, with the same result for every file format.

A number has a type in parquet and JSON but none in CSV, and one missing cell makes pandas write a
column of integers as ``1.0``. Labels, ids and groups are therefore read by the kind of their whole
column: if every cell is a whole number, or every cell is true or false, they are read as such,
otherwise as written. Each text is read on its own, so that its prompt depends on no other row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from enum import Enum
from functools import reduce
from itertools import islice
from math import isfinite
from typing import Any

from regreason_plugin.data.source_rows import LeftOut, SourceRows
from regreason_plugin.data.text_cleaning import clean

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
# The form in which Python and pandas write floats from 1e16 on.
_POWER = re.compile(r"-?[1-9](?:\.[0-9]+)?e\+[0-9]{2,3}")
_TRUTHS = frozenset({"True", "true", "TRUE", "False", "false", "FALSE"})
# In a column of numbers or of true and false, these mark a missing cell.
_MISSING = frozenset({"nan", "NaN", "None", "<NA>"})


class Kind(Enum):
    """The kind of all cells of a column, except for missing ones."""

    TEXT = "text"
    INTEGERS = "integers"
    TRUTHS = "true or false"
    EMPTY = "nothing"


def whole_number(text: str) -> str | None:
    """A whole number without its ``.0``; None for any other text, including ``01`` and ``+1``."""
    if match := _WHOLE.fullmatch(text):
        return "0" if match[1] == "-0" else match[1]
    if _POWER.fullmatch(text) and isfinite(float(text)):
        number = Decimal(text)
        return str(int(number)) if number == int(number) else None
    return None


def written(value: Any, classes: Sequence[str] = ()) -> str:
    """A cell as it would be written in CSV; empty if it is missing.

    Args:
        value: The cell, of any type that a file format yields.
        classes: The names of the classes, if the column has numbers of classes.

    Raises:
        ValueError: The cell is neither a text nor a number; the message says so as a predicate.
    """
    if value is None or value != value:  # pandas keeps a missing text as NaN
        return ""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"contains bytes that are not UTF-8 (got {value!r:.60})") from None
    if isinstance(value, Decimal):
        value = format(value, "f")
    if not isinstance(value, str | int | float):
        raise ValueError(f"is neither a text nor a number (got {str(value)!r:.60})")
    text = str(value)
    if not text.isascii():  # JSON may contain lone surrogates, which UTF-8 cannot encode
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    number = whole_number(text) if classes else None
    if number == "-1":  # the Hub's number for a missing class
        return ""
    return classes[int(number)] if number and 0 <= int(number) < len(classes) else text


def text_of(value: Any) -> str:
    """A cell of a text column, cleaned; a whole number loses its ``.0``.

    Raises:
        ValueError: See `written`.
    """
    text = clean(written(value))
    return whole_number(text) or text


def read_as(kind: Kind, text: str) -> str:
    """Read a label, an id or a group by the kind of its column; empty if it is missing."""
    plain = text.strip()
    if kind is Kind.TEXT:
        return text if plain else ""
    if plain in _MISSING:
        return ""
    return plain.lower() if kind is Kind.TRUTHS else whole_number(plain) or plain


def find_kinds(
    rows: SourceRows,
    columns: Iterable[str],
    again: Callable[[], SourceRows],
    limit: int | None = None,
) -> dict[str, Kind]:
    """The kind of each column. Reads only as many rows as are needed to know it.

    Args:
        rows: The table, for what it declares about its columns; none of its rows are consumed.
        columns: The names of the columns.
        again: Opens the table anew, to read its cells. Rows that cannot be read are skipped; the
            code that reads them for their content reports them.
        limit: The number of rows to consider, from the first; None for all.
    """
    kinds = dict.fromkeys(columns, Kind.EMPTY)
    unclear = [name for name in kinds if name not in rows.classes and name not in rows.integers]
    for name in kinds:
        if name in rows.classes:
            kinds[name] = reduce(_with, rows.classes[name], Kind.EMPTY)
        elif name in rows.integers:
            kinds[name] = Kind.INTEGERS
    for row in islice(again().rows, limit) if unclear else ():
        value = row.value
        if isinstance(value, LeftOut):
            continue
        for name in unclear:
            try:
                kinds[name] = _with(kinds[name], written(value.get(name)).strip())
            except ValueError:
                continue
        unclear = [name for name in unclear if kinds[name] is not Kind.TEXT]
        if not unclear:
            break
    return kinds


def _with(known: Kind, text: str) -> Kind:
    """The kind of a column after one more cell."""
    if not text or text in _MISSING:
        return known
    kind = Kind.TEXT
    if whole_number(text) is not None:
        kind = Kind.INTEGERS
    elif text in _TRUTHS:
        kind = Kind.TRUTHS
    return kind if known in (Kind.EMPTY, kind) else Kind.TEXT
