"""What one model answered in one task."""

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
    """What one model answered in one task, its N documents in the order of their ids.

    Attributes:
        task: Its name.
        source: The samples file.
        ids: The documents' ids, each once.
        hashes: Of each document's content and prompt, as lm_eval made them, in one.
        groups: The group of each.
        labels: The right labels from 1, ``[N]``.
        log_probabilities: Over the labels, ``[N, labels]``.
        probes: By name of `metric_names.PROBES`, ``[N]``; NaN where undefined.
        layers: By name of `metric_names.LAYERS`, ``[N, layers + 1]``, index 0 the embeddings; NaN
            where undefined.
        ordinal: Whether the labels have an order.
        probes_prefix: ``forced_`` where the probes were read with the label forced at once.
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
        """How many labels there are."""
        return int(self.log_probabilities.shape[1])

    @cached_property
    def predictions(self) -> Integers:
        """The most likely labels, the first of equals, ``[N]``."""
        best: Integers = np.argmax(self.log_probabilities, axis=1) + 1
        return best

    @cached_property
    def confidences(self) -> Array:
        """The probability of each prediction, ``[N]``."""
        best: Array = np.exp(self.log_probabilities.max(axis=1))
        return best

    @cached_property
    def correct(self) -> Array:
        """1 where the prediction is right, else 0, ``[N]``."""
        right: Array = (self.predictions == self.labels).astype(np.float64)
        return right
