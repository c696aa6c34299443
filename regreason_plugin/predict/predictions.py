"""`Prediction`, and its two file formats: JSON lines and CSV."""

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
    """A model's answer to one text.

    Attributes:
        label: The most probable label; None if there is an error.
        probabilities: The probability of each label, with sum 1; empty if there is an error.
        explanation: The model's explanation, on one line; None if it was not asked for one.
        cut: Whether the text was shortened to fit the model or the limit of training.
        error: The reason why there is no label; None if there is one.

    Example:
        >>> from regreason_plugin import Prediction
        >>> prediction = Prediction("billing", {"billing": 0.75, "delivery": 0.25})
        >>> prediction.probabilities[prediction.label]
        0.75
    """

    label: str | None
    probabilities: dict[str, float]
    explanation: str | None = None
    cut: bool = False
    error: str | None = None


def output_format(path: Path) -> Kind:
    """The format of an output file, by its ending.

    Raises:
        UserError: The ending is neither ``.jsonl`` nor ``.csv``.
    """
    if path.suffix == ".jsonl":
        return "jsonl"
    if path.suffix == ".csv":
        return "csv"
    raise UserError("--out has to end with .jsonl or .csv", path=path)


class Lines:
    """Formats predictions as the lines of a file.

    Args:
        kind: The file's format.
        labels: The task's labels, in order.
        explains: Whether each line has an explanation.
        spreadsheet_safe: Defuse CSV cells that a spreadsheet would run as a formula
            (see `csv_line`).
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
        """The header line of CSV; empty for JSON lines."""
        if self.kind == "jsonl":
            return b""
        probabilities = [f"p({label})" for label in self.labels]
        explanation = ["explanation"] if self.explains else []
        return self._csv(["id", "label", *probabilities, *explanation, "cut", "error"])

    def line(self, name: str, prediction: Prediction) -> bytes:
        """The line of one prediction, whose row has the id ``name``.

        Probabilities have eight significant digits. Texts are written unchanged, except that a
        lone surrogate, which UTF-8 cannot encode, becomes an escape sequence.
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
