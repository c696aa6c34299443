"""Builds a data folder from labelled documents: splits, cuts, renders, writes one file per arm.

Two passes read the documents, so that memory holds an index and never the texts. The first pass
checks and sorts them (`document_index`); the second writes each row to all arms (`row_writer`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from regreason_plugin.annotate.agreement import agreement
from regreason_plugin.annotate.label_leaks import without_leaks
from regreason_plugin.annotate.provenance import About, provenance_path, read_provenance
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

# Keys that a manifest has only if they say something.
_OPTIONAL = ("explained_by", "at_most", "own_splits", "stratified")


def _silent(stage: str, rows: int) -> None:
    """Ignore the progress."""


def build(
    ratings: Path,
    out: Path,
    options: BuildOptions | None = None,
    *,
    declaration: Declaration = EIGHTEEN,
    on_progress: Progress = _silent,
) -> DataFolder:
    """Build a data folder from a ratings file. An error leaves ``out`` unchanged.

    Args:
        ratings: A ratings file (`records.Rating`, one per line), gzipped or not.
        out: The folder to write; an older data folder there is replaced.
        options: The build options; None for their defaults.
        declaration: The labels and settings of the task.
        on_progress: Called with the pass (``check`` or ``write``) and the number of rows that it
            has processed since the last call.

    Raises:
        UserError: A rating is invalid; ``out`` contains the ratings file, or is neither empty nor
            a data folder; or ``out`` cannot be written.
    """
    check_not_input(out, [ratings])
    about = (
        read_provenance(ratings, file_sha256(ratings))
        if provenance_path(ratings).is_file()
        else None
    )
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
    """Build a data folder from your own task. An error leaves ``out`` unchanged.

    Args:
        path: The ``task.yml``.
        out: The folder to write; an older data folder there is replaced.
        options: The build options. If the table has no column of explanations, all arms are
            replaced by ``label_only``; if it has one, rows without an explanation are left out of
            training.
        seed: The seed of the split and of every draw; None for the task's own seed.
        on_progress: See `build`.

    Returns:
        The data folder, and counts of the table's rows.

    Raises:
        UserError: The task or its table is invalid, or an arm needs explanations and the table
            has none.
    """
    task = read_task(path)
    check_not_input(out, [path, *task.data.files()])
    if task.columns.explanation is None:
        if options.arms not in (ARMS, ("label_only",)):
            raise UserError(
                "the task names no column of explanations, and every arm but label_only is made "
                "from them; name the column under `columns`, or build with --arms label_only",
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
    """Build a data folder from labelled documents. An error leaves ``out`` unchanged.

    Args:
        source: The documents.
        out: The folder to write; an older data folder there is replaced.
        options: The build options; None for their defaults.
        about: How the documents were rated, for the dataset card.
        on_progress: See `build`.

    Raises:
        UserError: A document is invalid, ``out`` is neither empty nor a data folder, or ``out``
            cannot be written.
    """
    options = options or BuildOptions()
    if out.exists() and (
        not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file())
    ):
        raise UserError("exists and is not a data folder; name another --out", path=out)
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
            unset = {name for name in _OPTIONAL if getattr(manifest, name) is None}
            with atomic_writer(written / MANIFEST) as stream:
                stream.write(dumps(manifest.model_dump(exclude=unset)).encode("utf-8") + b"\n")
            sha256 = file_sha256(written / MANIFEST)
            with atomic_writer(written / CARD) as stream:
                stream.write(data_card(manifest, sha256, agreement(index.scores), about).encode())
    return open_data_folder(out)


def _explains(options: BuildOptions, declaration: Declaration, explanation: str) -> bool:
    """Whether every arm can be trained on a row; all arms have the same rows."""
    if options.arms == ("label_only",) and not declaration.rated:
        return True
    if options.leaks == "remove":
        explanation = without_leaks(explanation, declaration.labels)
    return bool(explanation.strip())
