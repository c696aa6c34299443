"""The input of `regreason build`: labelled documents from a ratings file, table or generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.jsonl import read_objects
from regreason_plugin.core.task_file import AXIS, Task
from regreason_plugin.data.labelled_table import Counts, read_labelled, unit_of


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
    """

    name: str
    path: str
    declaration: Declaration
    documents: Iterable[tuple[int, dict[str, Any]]]
    unit: str = "line"

    def place(self, number: int) -> str:
        """The position of a document, for error messages."""
        return f"{self.path}, {self.unit} {number}"


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

    def documents() -> Iterator[tuple[int, dict[str, Any]]]:
        for row in read_labelled(task, counts):
            yield (
                row.line,
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

    table = task.data
    name = table.path.name if table.path else str(table)
    return Source(name, str(table), task.declaration, documents(), unit_of(table))
