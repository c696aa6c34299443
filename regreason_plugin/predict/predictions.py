"""A prediction, and how it is written: a JSON object or a CSV line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import dumps
from regreason_plugin.render.csv_file import csv_line

Kind = Literal["jsonl", "csv"]


@dataclass(frozen=True)
class Prediction:
    """What a model makes of a text.

    Attributes:
        label: The likeliest; None where there is an error.
        probabilities: Of each label; they sum to 1.
        explanation: What the model wrote, on one line; None where it was not asked.
        cut: Whether the text was shortened to fit.
        error: Why there is no label.
    """

    label: str | None
    probabilities: dict[str, float]
    explanation: str | None = None
    cut: bool = False
    error: str | None = None


def kind_of(path: Path) -> Kind:
    """How a file is written, by its ending.

    Raises:
        UserError: By this ending none.
    """
    if path.suffix == ".jsonl":
        return "jsonl"
    if path.suffix == ".csv":
        return "csv"
    raise UserError("--out has to end with .jsonl or .csv", path=path)


class Lines:
    """A file's lines.

    Args:
        kind: What it is.
        labels: The task's, in their order.
        explains: Whether there are explanations.
        spreadsheet_safe: As of `csv_line`, for CSV.
    """

    def __init__(
        self,
        kind: Kind,
        labels: Sequence[str],
        explains: bool,
        *,
        spreadsheet_safe: bool = False,
    ) -> None:
        self.kind = kind
        self.labels = labels
        self.explains = explains
        self.spreadsheet_safe = spreadsheet_safe

    def header(self) -> bytes:
        """What stands above the first prediction."""
        if self.kind == "jsonl":
            return b""
        probabilities = [f"p({label})" for label in self.labels]
        explanation = ["explanation"] if self.explains else []
        return self._csv(["id", "label", *probabilities, *explanation, "cut", "error"])

    def line(self, name: str, prediction: Prediction) -> bytes:
        """A prediction with the id of its row.

        Probabilities have eight digits. Every text stands as it is, but for half of a character
        (a lone surrogate), which UTF-8 cannot hold: an escape stands for it.
        """
        probabilities = {
            label: float(f"{value:.8g}") for label, value in prediction.probabilities.items()
        }
        if self.kind == "jsonl":
            record: dict[str, Any] = {
                "id": name,
                "label": prediction.label,
                "probabilities": probabilities or None,
            }
            if self.explains:
                record["explanation"] = prediction.explanation
            record |= {"cut": prediction.cut, "error": prediction.error}
            return dumps(record).encode("utf-8", "backslashreplace") + b"\n"
        return self._csv(
            [
                name,
                prediction.label,
                *(probabilities.get(label) for label in self.labels),
                *([prediction.explanation] if self.explains else []),
                str(prediction.cut).lower(),
                prediction.error,
            ]
        )

    def _csv(self, values: Sequence[str | float | None]) -> bytes:
        line = csv_line(values, spreadsheet_safe=self.spreadsheet_safe)
        return line.encode("utf-8", "backslashreplace")
