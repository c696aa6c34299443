"""Files of a training that grow line by line: its curves, whatever the config logs to.

``log.jsonl`` in output_dir has one JSON object for each line of the log, in its order:

- ``step``: optimizer steps done; ``epoch``; ``label_tokens_seen`` and ``target_tokens_seen``:
  tokens trained on until then, over all processes; ``seconds`` that it has taken. Any of them
  can be a curve's x-axis.
- a line of the training: ``loss``, ``learning_rate``, ``grad_norm``, ``label_loss``,
  ``explanation_loss`` and one of `ACCURACIES`, over the steps since the line before;
- a line of an evaluation: ``eval_loss``, ``eval_label_loss``, ``eval_explanation_loss`` and one
  of `ACCURACIES` after ``eval_``, over all validation rows;
- a line of the probe batch: ``probe/<name>``, as of `regreason_plugin.train.probe_batch`;
- at the end ``train_loss``, ``train_runtime``.

What Axolotl and transformers add (``ppl``, memory) is there, too. null stands for a value that
is no finite number. A step has at most one line of each kind (its first key tells), also where
the training was killed and resumed: then the lines after the checkpoint's step are dropped, as
their steps are done again. A line is written whole before the training goes on.
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
# How well the labels are predicted, by the name that a log has of it. Only the first is what
# scoring finds: the labels differ in one token, and nothing but the prompt stands before them.
ACCURACIES = {
    "label_acc": "accuracy on the validation labels",
    "label_acc_after_explanation": (
        "accuracy on the validation labels, after the true explanation"
    ),
    "label_token_acc": "validation label tokens predicted, given the true ones before",
}


class LineFile:
    """A file of one JSON object a line and at most one of a kind a step.

    Args:
        path: The file; it is made with the first line.
        step: That of the checkpoint that the training goes on from; 0 for a new training,
            which begins with no lines.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self._path = path
        self._known: set[tuple[int, str]] = set()
        kept = []
        for line in path.read_bytes().splitlines(keepends=True) if step and path.exists() else ():
            # (A last line without its end was cut off by a full disk or a dead machine.)
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
        """Append a line, unless the step has one of its kind.

        Args:
            step: Optimizer steps done.
            values: What to write.
        """
        key = (step, _kind(values))
        if key in self._known:
            return
        self._known.add(key)
        line = dumps({"step": step, **{name: _number(value) for name, value in values.items()}})
        append(self._path, line.encode() + b"\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Every line that the training of a model has logged, in order.

    Raises:
        UserError: A line is broken.
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
    """Which of `ACCURACIES` an evaluation has logged, and its value; None of other lines."""
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
