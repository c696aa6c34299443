"""What `regreason task new` is to write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regreason_plugin.core.task_file import TaskFile


@dataclass(frozen=True)
class NewTask:
    """What the files are made from.

    Attributes:
        task: With the path of its data as seen from where one stands.
        dest: The folder to make.
        base: The model to train, a folder or a Hub name.
        rows: How many rows the table has.
        explained: How many of them have an explanation.
    """

    task: TaskFile
    dest: Path
    base: str
    rows: int
    explained: int

    @property
    def arms(self) -> tuple[str, ...]:
        """What can be trained."""
        return ("label_only", "explanation", "shuffled") if self.explained else ("label_only",)

    @property
    def main_arm(self) -> str:
        """The one that the commands use where they need one."""
        return "explanation" if self.explained else "label_only"
