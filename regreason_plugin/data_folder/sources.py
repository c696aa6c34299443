"""The input of `regreason build`: labelled documents from a ratings file, table or generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.jsonl import read_objects
from regreason_plugin.core.splits import OnOverlap, Split
from regreason_plugin.core.task_file import AXIS, Task
from regreason_plugin.data.labelled_table import Counts, read_labelled, unit_of


@dataclass(frozen=True)
class UserSplits:
    """Splits that the user sets, filled while the documents are read.

    Attributes:
        column: The column that names the split of each row; None if each split is a table.
        on_overlap: What happens to a text or a group in two splits (`task_file.SplitRule`).
        of_group: The split of each group.
        spellings: The names of splits that rows have, such as ``dev``, and the splits they mean.
        overlap: Rows left out of each split because another split has their text or group.
    """

    column: str | None
    on_overlap: OnOverlap
    of_group: dict[str, Split]
    spellings: Mapping[str, Split]
    overlap: Mapping[Split, int]


@dataclass(frozen=True)
class Source:
    """Labelled documents, in any order.

    Attributes:
        name: The name of the source in the manifest.
        path: The name of the source in error messages.
        declaration: The labels and settings of the task.
        documents: For each document its number in the source and the fields of its
            `records.Rating`. They are read once.
        unit: The unit of that number: ``line`` or ``row``.
        tables: For several tables, their names in error messages; the rows of each are numbered
            from the number beside it.
        splits: The splits, if the user sets them.
    """

    name: str
    path: str
    declaration: Declaration
    documents: Iterable[tuple[int, dict[str, Any]]]
    unit: str = "line"
    tables: Sequence[tuple[int, str]] = ()
    splits: UserSplits | None = None

    def place(self, number: int) -> str:
        """The position of a document, for error messages."""
        start, path = next(
            (table for table in reversed(self.tables) if table[0] < number), (0, self.path)
        )
        return f"{path}, {self.unit} {number - start}"


def ratings_source(path: Path, declaration: Declaration) -> Source:
    """The source that reads a ratings file: one JSON object per line, gzipped or not."""
    return Source(path.name, str(path), declaration, read_objects(path))


def table_source(task: Task, counts: Counts) -> Source:
    """The source that reads the table of a task.

    Each text becomes a document of one message, whose score is the number of its label.

    Args:
        task: The task, from `task_file.read_task`.
        counts: The counts, which are filled while the documents are read.
    """
    tables: list[tuple[int, str]] = []
    rule = task.split.on_overlap
    splits = UserSplits(task.columns.split, rule, {}, counts.spellings, counts.overlap)

    def documents() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        for row in read_labelled(task, counts):
            if not tables or tables[-1][1] != row.source:
                tables.append((number, row.source))
            number = tables[-1][0] + row.line
            if row.split is not None:
                splits.of_group[row.group] = row.split
            yield (
                number,
                {
                    "id": row.id,
                    "dataset": task.name,
                    "group": row.group,
                    "conversation": [{"role": "assistant", "content": row.text}],
                    "axis": AXIS,
                    "label": row.number,
                    "score": float(row.number),
                    "explanation": row.explanation or "",
                },
            )

    data = task.data
    names = [table.path.name if table.path else str(table) for _, table in data.tables()]
    return Source(
        ", ".join(names),
        str(data),
        task.declaration,
        documents(),
        unit_of(data),
        tables,
        splits if task.own_splits else None,
    )
