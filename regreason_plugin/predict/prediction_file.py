"""Streams predictions to a file in the order of the rows, and resumes after an interruption.

Rows are processed in steps. Only the input decides where a step ends, and each step is written
and recorded as a whole. A resumed run therefore makes the same batches, and writes the same
bytes, as a run that was never interrupted.
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

# A step ends at the limit that it reaches first.
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
    """Label rows and write the predictions. An unfinished file is resumed after its last step.

    Args:
        rows: All rows of the input, from the first.
        classify: Returns one prediction for each value.
        lines: Formats the predictions.
        out: The file to write.
        made_from: Everything that determines the file's content (see `OutputProgress`).
        step_rows: The largest number of rows in a step.
        on_rows: Called after each step with its number of rows.

    Returns:
        The progress of the finished file.

    Raises:
        UserError: The existing file was made from something else, another process is writing it,
            or it cannot be written. After the last of these the file ends with a complete step
            and can be resumed.
    """
    # Mode a+b creates a missing file and appends every write.
    new = not out.exists()
    with writing(out):
        created_folders = make_folders(out)
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
            # Written before the first step, so that a run that stops in it can be resumed.
            progress.write(out)
            for step in _steps(islice(rows, progress.rows, None), step_rows):
                predictions = classify([row.value for row in step])
                encoded = [] if progress.rows else [lines.header()]
                for row, prediction in zip(step, predictions, strict=True):
                    encoded.append(lines.line(row.id, prediction))
                    progress.count(prediction)
                content = b"".join(encoded)
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
                remove_folders(created_folders)
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
