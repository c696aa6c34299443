"""The cells of a table as text: the same whatever the table is stored in.

A number has a type in parquet and JSON and none in CSV, and one missing cell makes pandas write a
column of integers as ``1.0``. So what a label, an id or a group is called is decided by the whole
column: where every cell is a whole number, or every one true or false, it is read as such, and
else as it is written. A text is read by itself, so that its prompt depends on no other row.
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
# As Python and pandas write a float from 1e16 on.
_POWER = re.compile(r"-?[1-9](?:\.[0-9]+)?e\+[0-9]{2,3}")
_TRUTHS = frozenset({"True", "true", "TRUE", "False", "false", "FALSE"})
# Beside numbers, or beside true and false, these stand for a missing cell.
_MISSING = frozenset({"nan", "NaN", "None", "<NA>"})


class Kind(Enum):
    """What all cells of a column are, but for missing ones."""

    TEXT = "text"
    INTEGERS = "integers"
    TRUTHS = "true or false"
    EMPTY = "nothing"


def whole_number(text: str) -> str | None:
    """A whole number without its ``.0``; None for any other text, ``01`` and ``+1`` among them."""
    if match := _WHOLE.fullmatch(text):
        return "0" if match[1] == "-0" else match[1]
    if _POWER.fullmatch(text) and isfinite(float(text)):
        number = Decimal(text)
        return str(int(number)) if number == int(number) else None
    return None


def written(value: Any, classes: Sequence[str] = ()) -> str:
    """A cell as CSV has it, empty where it is missing.

    Args:
        value: Of any type that a format gives.
        classes: The names behind the numbers of its column.

    Raises:
        ValueError: It is no text and no number; the message says so, as a predicate.
    """
    if value is None or value != value:  # pandas keeps a missing text as NaN
        return ""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"holds bytes that are no UTF-8 text (got {value!r:.60})") from None
    if isinstance(value, Decimal):
        value = format(value, "f")
    if not isinstance(value, str | int | float):
        raise ValueError(f"is no text and no number (got {str(value)!r:.60})")
    text = str(value)
    if not text.isascii():  # lone surrogates have no UTF-8, and JSON may hold them
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    place = whole_number(text) if classes else None
    if place == "-1":  # what the Hub writes for no class
        return ""
    return classes[int(place)] if place and 0 <= int(place) < len(classes) else text


def text_of(value: Any) -> str:
    """A cell that holds a text, cleaned; a whole number is one without its ``.0``.

    Raises:
        ValueError: As `written`.
    """
    text = clean(written(value))
    return whole_number(text) or text


def read_as(kind: Kind, text: str) -> str:
    """A label, an id or a group by the kind of its column; empty where it is missing."""
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
    """What the cells of columns are; rows are read until that is clear.

    Args:
        rows: Of the table, none of which are taken: what it says of its columns may do.
        columns: Their names.
        again: Opens the table anew. Rows that cannot be read are passed over: whoever reads
            them for their content says what is wrong.
        limit: Only so many rows, from the first.
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
    """The kind of a column with one more cell."""
    if not text or text in _MISSING:
        return known
    kind = Kind.TEXT
    if whole_number(text) is not None:
        kind = Kind.INTEGERS
    elif text in _TRUTHS:
        kind = Kind.TRUTHS
    return kind if known in (Kind.EMPTY, kind) else Kind.TEXT
