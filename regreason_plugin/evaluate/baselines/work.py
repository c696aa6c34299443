"""The job of one method of `regreason baselines`, as it is passed to the method's process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Work:
    """The job of one method.

    Attributes:
        method: The method's name.
        data: The data folder.
        out: The folder for results and ``cost.json``.
        tasks: Names of the tasks to score; None for all tasks of the data.
        model: The base model, a folder or a Hub name; None for a method without one.
        seed: The random seed; None for a method without randomness.
        epochs: Training epochs of ``head``.
        learning_rate: Learning rate of ``head``.
        batch_size: Rows per batch of ``head``.
        include_path: A folder of further task files.
        apply_chat_template: Whether prompts are put into the base model's chat template.
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
        """The job as JSON: the argument of ``python -m regreason_plugin.evaluate.baselines``."""
        # (A finished method runs again if its argument changes. Options of `head` must not
        # cause that for other methods.)
        head_only = {"epochs", "learning_rate", "batch_size"} if self.seed is None else set()
        return WORK.dump_json(self, exclude=head_only, exclude_none=True).decode()


WORK = TypeAdapter(Work)
