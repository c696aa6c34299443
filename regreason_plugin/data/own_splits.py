"""Finds the texts and groups that two splits share, where the user sets the splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.splits import SPLITS, OnOverlap, Split
from regreason_plugin.data.cell_reader import CellReader
from regreason_plugin.data.groups import text_group
from regreason_plugin.data.source_rows import LeftOut, SourceRow, SourceRows

# The table of a row, the unit in which its rows are numbered, and its number.
Place = tuple[str, str, int]
# Of two rows that share a text or a group, the one whose split comes first here is kept.
_FIRST: tuple[Split, ...] = ("test", "validation", "train")


@dataclass
class Overlap:
    """The texts and groups of each split, and the rows that share one with an earlier split.

    Two texts are the same if they differ only in case, punctuation and white space.

    Attributes:
        dropped: The number of rows that `finds` has found, by their split.
    """

    dropped: Counter[Split] = field(default_factory=Counter)
    _first: dict[bytes, tuple[int, Place]] = field(default_factory=dict)
    _example: str = ""

    def read(self, rows: SourceRows, reader: CellReader) -> None:
        """Note the texts and groups of all rows with a text and a label.

        A row with a fault is skipped; the pass that reads the rows for their content reports it.
        """
        for row in rows.rows:
            if isinstance(row.value, LeftOut):
                continue
            try:
                cells = reader.cells(row, row.value)
                split = reader.split(row, cells["split"], {})
            except UserError:
                continue
            if split is None or not cells["text"] or not cells["label"]:
                continue
            rank = _FIRST.index(split)
            for _, key in _keys(cells):
                known = self._first.get(key)
                if known is None or rank < known[0]:
                    self._first[key] = rank, _place(row)

    def finds(self, split: Split, row: SourceRow, cells: Mapping[str, str]) -> bool:
        """Whether a split that comes before the row's has its text or its group."""
        for what, key in _keys(cells):
            rank, place = self._first[key]
            if rank < _FIRST.index(split):
                self.dropped[split] += 1
                self._example = self._example or (
                    f"{_located(_place(row), place)} ({split}), has the {what} of "
                    f"{_located(place, _place(row))} ({_FIRST[rank]})"
                )
                return True
        return False

    def check(self, on_overlap: OnOverlap, path: str) -> None:
        """Refuse splits that share a text or a group, unless the rows may be dropped.

        Raises:
            UserError: `finds` has found a row, and ``on_overlap`` is ``refuse``.
        """
        if not self.dropped or on_overlap == "drop":
            return
        raise UserError(
            f"{counted(self.dropped)} a text or a group with a test or validation row; the first, "
            f"{self._example}; remove one of the two, or write --on-overlap drop (`on_overlap: "
            "drop` under `split` in a task.yml), which leaves out such train and validation rows "
            "and keeps test whole",
            path=path,
        )


def counted(rows: Counter[Split]) -> str:
    """The beginning of a sentence about the rows of an overlap, such as ``3 train rows share``."""
    named = [f"{rows[split]:,} {split}" for split in SPLITS if rows[split]]
    return f"{' and '.join(named)} {'row shares' if rows.total() == 1 else 'rows share'}"


def _keys(cells: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """A description and a hash of the group that the table names, if it does, and of the text."""
    group, text = cells["group"], cells["text"]
    if group:
        yield f"group {group[:60]!r}", _digest(f"group {group}")
    yield f"text {text[:60]!r}", _digest(text_group(text))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:12]


def _place(row: SourceRow) -> Place:
    return row.source, row.unit, row.number


def _located(place: Place, other: Place) -> str:
    """A row's place; its table is left out if it is also the table of the other row."""
    table, unit, number = place
    return f"{unit} {number}" if table == other[0] else f"{table}, {unit} {number}"
