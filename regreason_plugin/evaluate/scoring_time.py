"""How long a model took for the documents that it scored."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from regreason_plugin.core.cost import Machine, Memory, ScoringCost

# Of lm-eval's results: the key of ``config`` that has it.
SCORING = "regreason_scoring"


class Clock:
    """Time spent in a model, and the documents it was spent on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._documents: set[tuple[str | None, int | None]] = set()

    @contextmanager
    def on(self, requests: Sequence[Any]) -> Iterator[None]:
        """Count what is done within, for these requests of lm-eval."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started
        # (A document has a request a label; one that explains first has more beside them.)
        self._documents.update((request.task_name, request.doc_id) for request in requests)

    @property
    def documents(self) -> int:
        """How many it was."""
        return len(self._documents)

    def cost(self) -> ScoringCost:
        """With this process's memory, and this machine."""
        return ScoringCost(
            seconds=self.seconds,
            documents=self.documents,
            machine=Machine.here(),
            **Memory.so_far().model_dump(),
        )
