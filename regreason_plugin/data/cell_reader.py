"""Reads the cells of a table's rows, each in the way that its column asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.splits import SPLITS, Split
from regreason_plugin.core.task_file import Columns, Data
from regreason_plugin.data.cells import Kind, read_as, text_of, written
from regreason_plugin.data.source_rows import LeftOut, SourceRow
from regreason_plugin.data.text_cleaning import clean

# Cells that are read by the kind of their whole column; all other cells are read one by one.
BY_COLUMN = ("label", "id", "group")
# The names of a split, in lower case.
_SPELLINGS: dict[str, Split] = {
    **{split: split for split in SPLITS},
    **dict.fromkeys(("val", "valid", "dev", "eval"), "validation"),
}


class CellReader(NamedTuple):
    """Reads the cells of a row by the kinds of their columns."""

    columns: Columns
    classes: Mapping[str, Sequence[str]]
    kinds: Mapping[str, Kind]

    def cells(self, row: SourceRow, value: Mapping[str, Any]) -> dict[str, str]:
        """The cells by role (text, label, ...); empty if a cell or its column is missing.

        Raises:
            UserError: A cell is neither a text nor a number.
        """
        cells = dict.fromkeys(("explanation", "id", "group", "split"), "")
        for what, name in self.columns.named().items():
            try:
                cells[what] = self._cell(what, name, value.get(name))
            except ValueError as error:
                raise row.error(LeftOut(str(error), field=name)) from None
        return cells

    def split(self, row: SourceRow, cell: str, spellings: dict[str, Split]) -> Split | None:
        """The row's own split, from its file or its cell; None if the user sets no splits.

        Args:
            row: The row.
            cell: Its cell of the split column.
            spellings: Gets the cell's spelling, if it is not the split's own name.

        Raises:
            UserError: The cell names no split.
        """
        if self.columns.split is None:
            return row.split
        try:
            split = split_of(cell)
        except ValueError as error:
            raise row.error(LeftOut(str(error), field=self.columns.split)) from None
        if cell != split:
            spellings[cell] = split
        return split

    def _cell(self, what: str, name: str, value: Any) -> str:
        if what == "split":
            return written(value, self.classes.get(name, ())).strip()
        if what not in BY_COLUMN:
            return text_of(value)
        text = read_as(self.kinds[name], written(value, self.classes.get(name, ())))
        if what == "label":
            return clean(text)
        return text.strip() if what == "group" else text

    def of_values(self, values: Mapping[str, str], data: Data) -> dict[str, str]:
        """The keys of a task's ``values`` in this table's spelling, such as ``1`` for ``1.0``."""
        kind = self.kinds[self.columns.label]
        read: dict[str, str] = {}
        for value, label in values.items():
            plain = read_as(kind, value)
            if plain and read.setdefault(plain, label) != label:
                raise UserError(
                    f"all labels are {kind.value}, so {value!r} is read as {plain!r}, which "
                    f"cannot mean both {read[plain]!r} and {label!r}; change `labels` or `values`",
                    path=str(data),
                    field=self.columns.label,
                )
        return read


def split_of(cell: str) -> Split:
    """The split that a cell names.

    Raises:
        ValueError: It names none; the message says so as a predicate.
    """
    split = _SPELLINGS.get(cell.lower())
    if split is None:
        said = f"{cell!r:.60} is no split" if cell else "is empty"
        raise ValueError(f"{said}; write train, validation (or val, valid, dev, eval) or test")
    return split
