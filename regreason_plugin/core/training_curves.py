"""The learning curves of a training, in files that grow line by line.

``log.jsonl`` in output_dir has one JSON object for each log entry, whatever other loggers the
config names. A line has ``step`` (finished optimizer steps), ``epoch``, ``label_tokens_seen``
and ``target_tokens_seen`` (tokens trained on so far, over all processes), and ``seconds`` since
the start. Any of these can be the x-axis of a curve. The other keys depend on the kind of line:

- training: ``loss``, ``learning_rate``, ``grad_norm``, ``label_loss``, ``explanation_loss`` and
  one of `ACCURACIES`, over the steps since the previous line;
- evaluation: ``eval_loss``, ``eval_label_loss``, ``eval_explanation_loss`` and one of
  `ACCURACIES` with the prefix ``eval_``, over all validation rows;
- probe batch: ``probe/<name>`` (`regreason_plugin.train.probe_batch`);
- end of the training: ``train_loss``, ``train_runtime``.

Lines also have the values that Axolotl and transformers add (``ppl``, memory). A value that is not
a finite number is null. A step has at most one line of each kind, which its first key after
``step`` identifies. If a training is killed and resumed, the lines after the checkpoint's step
are dropped, because their steps are repeated. Each line is written whole before the training goes
on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import dumps
from regreason_plugin.core.whole_files import append, atomic_writer

LOG = "log.jsonl"
# Accuracies on the labels by their names in the log. Only the first equals the accuracy in scoring:
# it is logged if the labels differ in one token and nothing but the prompt precedes them.
ACCURACIES = {
    "label_acc": "accuracy on the validation labels",
    "label_acc_after_explanation": (
        "accuracy on the validation labels, after the true explanation"
    ),
    "label_token_acc": "validation label tokens predicted, given the true ones before",
}


class LineFile:
    """A file with one JSON object per line, and at most one line of each kind per step.

    Args:
        path: The file; the first line creates it.
        step: Step of the checkpoint from which the training resumes; later lines are removed. 0
            for a new training, which removes all lines.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self._path = path
        self._known: set[tuple[int, str]] = set()
        kept = []
        for line in path.read_bytes().splitlines(keepends=True) if step and path.exists() else ():
            # A full disk or a crash can leave an incomplete last line, which is dropped.
            if line.endswith(b"\n"):
                values = json.loads(line)
                if values["step"] <= step:
                    self._known.add((values["step"], _kind(values)))
                    kept.append(line)
        if kept:
            with atomic_writer(path) as stream:
                stream.writelines(kept)
        else:
            path.unlink(missing_ok=True)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Append a line, unless the step already has a line of this kind.

        Args:
            step: Number of finished optimizer steps.
            values: Values by key; the first key is the line's kind.
        """
        key = (step, _kind(values))
        if key in self._known:
            return
        self._known.add(key)
        line = dumps({"step": step, **{name: _number(value) for name, value in values.items()}})
        append(self._path, line.encode() + b"\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read all lines of ``log.jsonl`` in a model's folder, in their order.

    Raises:
        UserError: A line is not JSON.
    """
    lines = []
    with (folder / LOG).open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise UserError(f"is not JSON: {error}", path=folder / LOG, line=number) from None
    return lines


def evaluated_accuracy(line: Mapping[str, Any]) -> tuple[str, float] | None:
    """The name and value of the accuracy in an evaluation's line; None for other lines."""
    for name in ACCURACIES:
        value = line.get(f"eval_{name}")
        if value is not None:
            return name, float(value)
    return None


def _kind(values: Mapping[str, Any]) -> str:
    """A line's first key, such as ``loss``, ``eval_loss`` or ``train_runtime``."""
    return next((name for name in values if name != "step"), "")


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
