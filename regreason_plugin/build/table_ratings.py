"""A task's table as a ratings file, which is what `regreason build` reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from regreason_plugin.core.jsonl import dumps
from regreason_plugin.core.task_file import AXIS, TaskFile
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data.labelled_table import Counts, read_labelled


def write_rows(task: TaskFile, out: Path, on_row: Callable[[], object] = lambda: None) -> Counts:
    """Write a rating for each row, one a line, whole or not at all.

    The text stands as an assistant's one turn, and the number of the label as its score.

    Args:
        task: As `task_file.read_task` gives it.
        out: The file.
        on_row: Called for each row that is written.

    Returns:
        What was read.

    Raises:
        UserError: As `table.read_labelled`; nothing is written.
    """
    counts = Counts()
    with atomic_writer(out) as stream:
        for row in read_labelled(task, counts):
            value = {
                "id": row.id,
                "dataset": task.name,
                "group": row.group,
                "conversation": [{"role": "assistant", "content": row.text}],
                "axis": AXIS,
                "label": row.label,
                "score": float(row.label),
                "explanation": row.explanation or "",
            }
            stream.write(dumps(value).encode("utf-8") + b"\n")
            on_row()
    return counts
