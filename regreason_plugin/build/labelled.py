"""From a ``task.yml`` to a data folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from regreason_plugin.build.arms import ARMS
from regreason_plugin.build.build import BuildOptions, Progress, build
from regreason_plugin.build.folder import DataFolder
from regreason_plugin.build.table_ratings import write_rows
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.task_file import read_task
from regreason_plugin.core.whole_files import check_not_input, scratch_folder
from regreason_plugin.data.labelled_table import Counts


def build_task(
    path: Path,
    out: Path,
    options: BuildOptions,
    *,
    seed: int | None = None,
    on_progress: Progress = lambda stage, rows: None,
) -> tuple[DataFolder, Counts]:
    """Write the data folder of a task of one's own, whole or not at all.

    Args:
        path: The ``task.yml``.
        out: The folder to make.
        options: The switches; all arms become ``label_only`` alone where no row has an
            explanation, and rows without one are left out of training where others have.
        seed: Of the split and of every draw; None for the task's.
        on_progress: As of `build`, with ``read`` before.

    Returns:
        The folder, and what was read.

    Raises:
        UserError: The task or its table is wrong, or there are no explanations for the arms.
    """
    task = read_task(path)
    check_not_input(out, [path, task.data.path])
    with scratch_folder(out) as scratch:
        rows = scratch / f"{task.name}.jsonl"
        counts = write_rows(task, rows, lambda: on_progress("read", 1))
        if not counts.explained:
            if options.arms not in (ARMS, ("label_only",)):
                raise UserError(
                    "no row has an explanation, which every arm but label_only is made of; name "
                    "its column under `columns`, or build with --arms label_only",
                    path=path,
                    field="columns.explanation",
                )
            options = replace(options, arms=("label_only",))
        share = task.split
        options = replace(
            options,
            seed=share.seed if seed is None else seed,
            explained_by=task.explained_by,
            parts={
                "train": 1 - share.test - share.validation,
                "validation": share.validation,
                "test": share.test,
            },
        )
        try:
            folder = build(
                rows, out, options, declaration=task.declaration, on_progress=on_progress
            )
        except UserError as error:
            # The file is of our own making: what is wrong is in the table that it was made from.
            raise UserError(str(error).replace(str(rows), str(task.data))) from None
    return folder, counts
