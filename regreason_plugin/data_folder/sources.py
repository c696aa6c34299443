"""What `regreason build` reads: labelled documents of a ratings file, a table or a generator."""

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
        name: What the manifest calls the source.
        path: What a message calls it.
        declaration: The labels and settings of the task.
        documents: The fields of each `records.Rating` with its number in the source. They are
            read once.
        unit: What is numbered: a ``line`` or a ``row``.
    """

    name: str
    path: str
    declaration: Declaration
    documents: Iterable[tuple[int, dict[str, Any]]]
    unit: str = "line"

    def place(self, number: int) -> str:
        """A document's place, for messages."""
        return f"{self.path}, {self.unit} {number}"


def ratings_source(path: Path, declaration: Declaration) -> Source:
    """The ratings of a file, one JSON object a line, gzipped or not."""
    return Source(path.name, str(path), declaration, read_objects(path))


def table_source(task: Task, counts: Counts) -> Source:
    """The rows of a task's table.

    A text is a document of one message, and the number of its label is its score.

    Args:
        task: As `task_file.read_task` gives it.
        counts: Filled while the documents are read.
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
