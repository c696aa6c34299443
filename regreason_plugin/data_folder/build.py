"""From labelled documents to a data folder: split, cut, render, and one file an arm.

Two passes, so that memory holds an index and never the texts: the first checks and
sorts (`document_index`), the second writes every row to all arms at once (`row_writer`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from regreason_plugin.annotate.agreement import agreement
from regreason_plugin.annotate.label_leaks import without_leaks
from regreason_plugin.annotate.provenance import About, about_path, read_about
from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import dumps, file_sha256
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.core.task_file import read_task
from regreason_plugin.core.whole_files import (
    atomic_writer,
    check_not_input,
    scratch_folder,
    whole_folder,
)
from regreason_plugin.data.labelled_table import Counts
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.data_folder.card import CARD, data_card
from regreason_plugin.data_folder.document_index import index_documents
from regreason_plugin.data_folder.folder import MANIFEST, DataFolder, open_data_folder
from regreason_plugin.data_folder.lengths import Measure
from regreason_plugin.data_folder.row_writer import BuildOptions, Progress, RowWriter
from regreason_plugin.data_folder.sources import Source, ratings_source, table_source


def _silent(stage: str, rows: int) -> None:
    """Shows no progress."""


def build(
    ratings: Path,
    out: Path,
    options: BuildOptions | None = None,
    *,
    declaration: Declaration = EIGHTEEN,
    on_progress: Progress = _silent,
) -> DataFolder:
    """Write the data folder of a ratings file, whole or not at all.

    Args:
        ratings: A ratings file (`records.Rating`, one a line), gzipped or not.
        out: The folder to make; an older data folder there is replaced.
        options: The switches.
        declaration: The labels and settings of the task.
        on_progress: Called with ``check`` or ``write`` and a number of rows done.

    Raises:
        UserError: The ratings are wrong, or ``out`` holds them or something else, or cannot be
            written.
    """
    check_not_input(out, [ratings])
    about = read_about(ratings, file_sha256(ratings)) if about_path(ratings).is_file() else None
    source = ratings_source(ratings, declaration)
    return build_documents(source, out, options, about=about, on_progress=on_progress)


def build_task(
    path: Path,
    out: Path,
    options: BuildOptions,
    *,
    seed: int | None = None,
    on_progress: Progress = _silent,
) -> tuple[DataFolder, Counts]:
    """Write the data folder of a task of one's own, whole or not at all.

    Args:
        path: The ``task.yml``.
        out: The folder to make.
        options: The switches; all arms become ``label_only`` alone where the table has no
            explanations, and rows without one are left out of training where others have one.
        seed: Of the split and of every draw; None for the task's.
        on_progress: As of `build`.

    Returns:
        The folder, and what was read.

    Raises:
        UserError: The task or its table is wrong, or there are no explanations for the arms.
    """
    task = read_task(path)
    check_not_input(out, [path, task.data.path])
    if task.columns.explanation is None:
        if options.arms not in (ARMS, ("label_only",)):
            raise UserError(
                "no row has an explanation, which every arm but label_only is made of; name "
                "its column under `columns`, or build with --arms label_only",
                path=path,
                field="columns.explanation",
            )
        options = replace(options, arms=("label_only",))
    options = replace(
        options,
        seed=task.split.seed if seed is None else seed,
        explained_by=task.explained_by,
        parts={
            "train": 1 - task.split.test - task.split.validation,
            "validation": task.split.validation,
            "test": task.split.test,
        },
    )
    counts = Counts()
    source = table_source(task, counts)
    return build_documents(source, out, options, on_progress=on_progress), counts


def build_documents(
    source: Source,
    out: Path,
    options: BuildOptions | None = None,
    *,
    about: About | None = None,
    on_progress: Progress = _silent,
) -> DataFolder:
    """Write a data folder, whole or not at all.

    Args:
        source: The documents.
        out: The folder to make; an older data folder there is replaced.
        options: The switches.
        about: How the documents were rated, for the card.
        on_progress: As of `build`.

    Raises:
        UserError: A document is wrong, or ``out`` holds something else, or cannot be written.
    """
    options = options or BuildOptions()
    if out.exists() and (
        not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file())
    ):
        raise UserError("exists and is no data folder; name another --out", path=out)
    measure = Measure(options.tokenizer)
    with scratch_folder(out) as scratch:
        index = index_documents(
            source,
            scratch / "documents.jsonl",
            options.seed,
            lambda: on_progress("check", 1),
            partial(_explains, options, source.declaration),
            options.parts,
            options.conversations,
        )
        with whole_folder(out) as written, index.reader() as read:
            manifest = RowWriter(index, read, options, measure).write(written, on_progress)
            given = {name: getattr(manifest, name) for name in ("explained_by", "at_most")}
            without = {name for name, value in given.items() if value is None}
            with atomic_writer(written / MANIFEST) as stream:
                stream.write(dumps(manifest.model_dump(exclude=without)).encode("utf-8") + b"\n")
            sha256 = file_sha256(written / MANIFEST)
            with atomic_writer(written / CARD) as stream:
                stream.write(data_card(manifest, sha256, agreement(index.scores), about).encode())
    return open_data_folder(out)


def _explains(options: BuildOptions, declaration: Declaration, explanation: str) -> bool:
    """Whether a row can be trained on in every arm: all of them keep the same rows."""
    if options.arms == ("label_only",) and not declaration.rated:
        return True
    if options.leaks == "remove":
        explanation = without_leaks(explanation, declaration.labels)
    return bool(explanation.strip())
