"""`Answers`: one model's answers in one task, the input of the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """One model's answers in one task, for N documents in the order of their ids.

    Attributes:
        task: Name of the task.
        source: Path of lm-eval's samples file.
        ids: Unique ids of the documents.
        hashes: For each document, lm-eval's hashes of its content and of its prompt, joined.
        groups: Name of each document's group.
        labels: True labels, counted from 1, ``[N]``.
        log_probabilities: Log-probabilities of the labels, ``[N, labels]``.
        probes: Probe values by the names in `metric_names.PROBES`, ``[N]``; NaN where undefined.
        layers: Probe values by layer, by the names in `metric_names.LAYERS`,
            ``[N, layers + 1]``, with the embeddings at index 0; NaN where undefined.
        ordinal: Whether the labels have an order.
        probes_prefix: ``forced_`` if the model explains first and the probes were read at a label
            without an explanation; otherwise empty.
    """

    task: str
    source: Path
    ids: list[str]
    hashes: list[str]
    groups: list[str]
    labels: Integers
    log_probabilities: Array
    probes: dict[str, Array]
    layers: dict[str, Array]
    ordinal: bool = True
    probes_prefix: str = ""

    @cached_property
    def count(self) -> int:
        """The number of labels of the task."""
        return int(self.log_probabilities.shape[1])

    @cached_property
    def predictions(self) -> Integers:
        """The most likely label of each document, the first of equally likely ones, ``[N]``."""
        best: Integers = np.argmax(self.log_probabilities, axis=1) + 1
        return best

    @cached_property
    def confidences(self) -> Array:
        """The probability of each prediction, ``[N]``."""
        best: Array = np.exp(self.log_probabilities.max(axis=1))
        return best

    @cached_property
    def correct(self) -> Array:
        """1 where the prediction is correct, otherwise 0, ``[N]``."""
        correct: Array = (self.predictions == self.labels).astype(np.float64)
        return correct
