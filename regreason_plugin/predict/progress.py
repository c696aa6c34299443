"""How far an output file has come: ``<file>.progress.json`` beside it.

It is renewed after every step's lines are on the disk, so whatever stands behind its number of
bytes is cut off when the work goes on. It stays when all is done: it says what the file was made
from, and that nothing is left to do.
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
    """What the file was made from, and what stands in it.

    Attributes:
        made_from: Input, model and task; another one makes another file.
        rows: That are done.
        bytes: That they take.
        labels: How many rows have each.
        errors: How many rows have none.
        cut: How many texts were shortened.
        finished: Whether these are all.
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
        """One more row."""
        self.rows += 1
        self.cut += prediction.cut
        if prediction.label is None:
            self.errors += 1
        else:
            self.labels[prediction.label] += 1

    def write(self, out: Path) -> None:
        """Put it beside the file, whole or not at all."""
        with atomic_writer(progress_path(out)) as stream:
            stream.write(dumps(self.model_dump()).encode("utf-8") + b"\n")


def progress_path(out: Path) -> Path:
    """Where it stands."""
    return out.with_name(f"{out.name}.progress.json")


def read_progress(out: Path, made_from: dict[str, Any]) -> OutputProgress:
    """How far a file has come; nothing where it does not exist or is empty.

    Raises:
        UserError: It was made from something else, or is not what was written.
    """
    place = progress_path(out)
    if not out.exists() or (not out.stat().st_size and not place.exists()):
        return OutputProgress(made_from=made_from)
    if not place.is_file():
        raise UserError(
            f"exists and is not of this command, as it has no {place.name} beside it; name "
            "another --out",
            path=out,
        )
    found = validate(OutputProgress, parse_object(place.read_bytes(), place, 1), place, 1)
    changed = [
        name
        for name in {**made_from, **found.made_from}
        if found.made_from.get(name) != made_from.get(name)
    ]
    if changed:
        name = changed[0]
        was, now = (_short(one.get(name)) for one in (found.made_from, made_from))
        raise UserError(
            f"was made with {name} {was}, now it is {now}; name another --out or remove it",
            path=out,
        )
    if out.stat().st_size < found.bytes:
        raise UserError(
            f"is shorter than the {found.bytes:,} bytes that were written; remove it", path=out
        )
    return found


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
