"""What a method of `regreason baselines` is to do, in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Work:
    """What one method is to do.

    Attributes:
        method: Its name.
        data: The data folder.
        out: Where results and ``cost.json`` go.
        tasks: To score; None for all that the data has.
        model: The base model; None of a method without one.
        seed: Of a method with a random draw.
        epochs: Of ``head``.
        learning_rate: Of ``head``.
        batch_size: Of ``head``.
        include_path: A folder of more task files.
        apply_chat_template: Prompts in the base model's chat template.
    """

    method: str
    data: Path
    out: Path
    tasks: tuple[str, ...] | None = None
    model: str | None = None
    seed: int | None = None
    epochs: int = 3
    learning_rate: float = 2e-4
    batch_size: int = 16
    include_path: Path | None = None
    apply_chat_template: bool = False

    def argument(self) -> str:
        """For ``python -m regreason_plugin.evaluate.baselines``, as JSON."""
        # (What only `head` goes by is no reason to do another method anew.)
        of_head = {"epochs", "learning_rate", "batch_size"} if self.seed is None else set()
        return WORK.dump_json(self, exclude=of_head, exclude_none=True).decode()


WORK = TypeAdapter(Work)
