"""The progress of an output file, kept next to it in ``<file>.progress.json``.

It is updated after each step, once the lines of the step are on the disk. A resumed run therefore
cuts off all bytes beyond the recorded number. The progress file stays when the output is
complete: it records what the output was made from, and that nothing is left to do.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import dumps, parse_object, validate
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.predict.predictions import Prediction


class OutputProgress(BaseModel):
    """What an output file is made from, and how much of it is written.

    Attributes:
        made_from: The input, the model and the task. Predictions from others need another file.
        rows: The number of rows written.
        bytes: The size of the file with these rows.
        labels: The number of rows per label.
        errors: The number of rows without a label.
        cut: The number of rows whose text was shortened.
        finished: Whether all rows are written.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    made_from: dict[str, Any]
    rows: int = 0
    bytes: int = 0
    labels: Counter[str] = Field(default_factory=Counter)
    errors: int = 0
    cut: int = 0
    finished: bool = False

    def count(self, prediction: Prediction) -> None:
        """Count one more row."""
        self.rows += 1
        self.cut += prediction.cut
        if prediction.label is None:
            self.errors += 1
        else:
            self.labels[prediction.label] += 1

    def write(self, out: Path) -> None:
        """Write the progress next to the output file, atomically."""
        with atomic_writer(progress_path(out)) as stream:
            stream.write(dumps(self.model_dump()).encode("utf-8") + b"\n")


def progress_path(out: Path) -> Path:
    """The path of the progress file of an output file."""
    return out.with_name(f"{out.name}.progress.json")


def read_progress(out: Path, made_from: dict[str, Any]) -> OutputProgress:
    """Read the progress of an output file; it is empty if the file is missing or empty.

    Args:
        out: The output file.
        made_from: What the predictions of this run are made from.

    Raises:
        UserError: The file was made from something else, `regreason predict` did not write it,
            or it has lost bytes since.
    """
    progress_file = progress_path(out)
    if not out.exists() or (not out.stat().st_size and not progress_file.exists()):
        return OutputProgress(made_from=made_from)
    if not progress_file.is_file():
        raise UserError(
            f"exists, but without {progress_file.name} next to it, so `regreason predict` did "
            "not write it; name another --out",
            path=out,
        )
    content = parse_object(progress_file.read_bytes(), progress_file, 1)
    progress = validate(OutputProgress, content, progress_file, 1)
    changed = [
        name
        for name in {**made_from, **progress.made_from}
        if progress.made_from.get(name) != made_from.get(name)
    ]
    if changed:
        name = changed[0]
        was, now = (_short(source.get(name)) for source in (progress.made_from, made_from))
        raise UserError(
            f"was made with {name} {was}, now it is {now}; name another --out, or remove the file",
            path=out,
        )
    if out.stat().st_size < progress.bytes:
        raise UserError(
            f"is shorter than the {progress.bytes:,} bytes that its progress file records; "
            "remove it to start again",
            path=out,
        )
    return progress


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
