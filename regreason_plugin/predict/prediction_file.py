"""A file of predictions: streamed, in the order of the rows, and gone on with after a stop.

Rows are taken in steps whose ends depend on the input alone. A step is the unit that is written
and recorded, so a batch holds the same rows whether the work was stopped or not, and the file has
the same bytes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import append, make_folders, remove_folders, writing
from regreason_plugin.predict.input_rows import InputRow
from regreason_plugin.predict.predictions import Lines, Prediction
from regreason_plugin.predict.progress import OutputProgress, progress_path, read_progress

# A step ends with whichever comes first.
STEP_ROWS = 256
STEP_CHARACTERS = 2**18

Classify = Callable[[Sequence[Any]], Sequence[Prediction]]


def predict_file(
    rows: Iterable[InputRow],
    classify: Classify,
    lines: Lines,
    out: Path,
    made_from: dict[str, Any],
    *,
    step_rows: int = STEP_ROWS,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> OutputProgress:
    """Label rows and write them, from where it stopped.

    Args:
        rows: All of them, from the first.
        classify: A prediction for each value.
        lines: How they are written.
        out: The file.
        made_from: What the file is made from, as `Progress`.
        step_rows: How many rows a step has at most.
        on_rows: Called with the number of rows done by a step.

    Returns:
        The progress, finished.

    Raises:
        UserError: The file was made from something else, another process writes it, or it
            cannot be written; then it has whole steps, and can be gone on with.
    """
    # (In this mode it is made where there is none, and whatever is written goes to its end.)
    new = not out.exists()
    with writing(out):
        made = make_folders(out)
        stream = out.open("a+b", buffering=0)
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("another process is writing this file", path=out) from None
        progress = read_progress(out, made_from)
        if progress.finished:
            return progress
        try:
            with writing(out):
                stream.truncate(progress.bytes)
            # Before anything else, so that what was begun can be gone on with.
            progress.write(out)
            for step in _steps(islice(rows, progress.rows, None), step_rows):
                predictions = classify([row.value for row in step])
                written = [] if progress.rows else [lines.header()]
                for row, prediction in zip(step, predictions, strict=True):
                    written.append(lines.line(row.id, prediction))
                    progress.count(prediction)
                content = b"".join(written)
                append(out, content)
                with writing(out):
                    os.fsync(stream.fileno())
                progress.bytes += len(content)
                progress.write(out)
                on_rows(len(step))
            progress.finished = True
            progress.write(out)
        except UserError:
            if new and not progress.bytes:
                out.unlink(missing_ok=True)
                progress_path(out).unlink(missing_ok=True)
                remove_folders(made)
            raise
    return progress


def _steps(rows: Iterable[InputRow], step_rows: int) -> Iterator[list[InputRow]]:
    step: list[InputRow] = []
    characters = 0
    for row in rows:
        step.append(row)
        characters += len(str(row.value))
        if len(step) >= step_rows or characters >= STEP_CHARACTERS:
            yield step
            step, characters = [], 0
    if step:
        yield step
