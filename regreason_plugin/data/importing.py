"""Imports a dataset: opens its source, converts the rows to conversations, writes them.

Each importer lists the datasets that it reads; `IMPORTERS` finds the importer of a dataset.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.jsonl import write_records
from regreason_plugin.core.records import Conversation
from regreason_plugin.data import amazon, arena, coqa, cornell, hh
from regreason_plugin.data.importer import Importer
from regreason_plugin.data.row_readers import file_rows, hub_rows
from regreason_plugin.data.source_rows import LeftOut, SourceRow, SourceRows

IMPORTERS: Mapping[str, Importer] = {
    dataset: module.IMPORTER
    for module in (arena, hh, amazon, coqa, cornell)
    for dataset in module.IMPORTER.datasets
}


class Imported(NamedTuple):
    """The result of an import.

    Attributes:
        conversations: The number of conversations written.
        groups: The number of groups that they are in.
        left_out: The number of rows and conversations that were left out, by reason.
        drawn_from: The number of conversations from which the sample was drawn; None without a
            seed.
    """

    conversations: int
    groups: int
    left_out: Counter[str]
    drawn_from: int | None


def open_source(
    dataset: str,
    *,
    path: Path | None = None,
    subset: str | None = None,
    split: str | None = None,
) -> SourceRows:
    """Open the source of a dataset: a local file, or the Hub.

    Args:
        dataset: The name of the dataset.
        path: A file in one of the dataset's formats; for Cornell also a folder. None for the Hub.
        subset: A subset on the Hub; None for the dataset's first.
        split: A split on the Hub; None for ``train``.

    Raises:
        UserError: The dataset has no importer, the source cannot be reached or read, or it looks
            like another dataset.
    """
    if dataset not in IMPORTERS:
        raise UserError(
            f"there is no importer for {dataset}; write its conversations yourself, one JSON "
            "object per line, or add an importer as CONTRIBUTING.md describes"
        )
    importer = IMPORTERS[dataset]
    if path is None:
        source = subset or next(iter(importer.hub))
        if source not in importer.hub:
            known = nearest(source, list(importer.hub))
            raise UserError(f"{dataset} has no subset {source!r} on the Hub; {known}")
        hub = importer.hub[source]
        if importer.open_hub:
            if split:
                raise UserError(f"{dataset} has no splits; leave out --split")
            return importer.open_hub(hub)
        rows, name = hub_rows(hub, split or "train"), hub.repository
    else:
        if subset or split:
            raise UserError("--subset and --split are only for the Hub; leave them out with --path")
        opened = importer.open_path(path) if importer.open_path else path
        if isinstance(opened, SourceRows):
            return opened
        rows, name = file_rows(opened, importer.fields), str(opened)
    if rows.fields is not None:
        _check_fields(dataset, rows.fields, name, certain=True)
    rows = rows._replace(rows=_first_checked(dataset, rows.rows, name))
    if importer.gather:
        return SourceRows(None, importer.gather(rows.rows))
    return rows


def import_dataset(
    dataset: str,
    source: SourceRows,
    out: Path,
    *,
    limit: int | None = None,
    seed: int | None = None,
    strict: bool = False,
    on_row: Callable[[], object] = lambda: None,
) -> Imported:
    """Write the conversations of a dataset. An error leaves ``out`` unchanged.

    Args:
        dataset: The name of a dataset that has an importer.
        source: The dataset's rows, from `open_source`.
        out: The file to write.
        limit: The most conversations to write: the first ones, or with a seed a sample. The sample
            depends on the seed and the conversations, not on their order.
        seed: The seed of the sample. With a seed all rows are read, and at most ``limit``
            conversations are held in memory.
        strict: Stop at the first broken row instead of counting it.
        on_row: Called for each row read.

    Raises:
        UserError: No row can be used; or ``strict`` is set and a row is broken.
    """
    reading = _Reading(dataset, source.rows, strict, on_row)
    groups: set[int] = set()

    def written() -> Iterator[Conversation]:
        first = islice(reading.unique(), limit)
        for conversation in first if seed is None else reading.sample(limit, seed):
            groups.add(_hash(conversation.group))
            yield conversation
        if not groups:
            reading.refuse_nothing()

    count = write_records(out, written())
    drawn_from = None if seed is None else reading.usable
    return Imported(count, len(groups), reading.left_out, drawn_from)


class _Reading:
    """Converts the rows of a source to conversations, and counts what is left out."""

    def __init__(
        self, dataset: str, rows: Iterator[SourceRow], strict: bool, on_row: Callable[[], object]
    ) -> None:
        self.dataset = dataset
        self.importer = IMPORTERS[dataset]
        self.rows = rows
        self.strict = strict
        self.on_row = on_row
        self.left_out: Counter[str] = Counter()
        self.usable = 0
        self.first_error: UserError | None = None

    def _conversations(self) -> Iterator[Conversation]:
        for row in self.rows:
            self.on_row()
            try:
                if isinstance(row.value, LeftOut):
                    raise row.value
                for result in self.importer.convert(self.dataset, row.value):
                    if isinstance(result, LeftOut):
                        self._leave_out(row, result)
                    else:
                        yield result
            except LeftOut as left_out:
                self._leave_out(row, left_out)

    def _leave_out(self, row: SourceRow, left_out: LeftOut) -> None:
        error = row.error(left_out)
        if self.strict and left_out.broken:
            raise error
        self.left_out[left_out.counted] += 1
        self.first_error = self.first_error or error

    def unique(self) -> Iterator[Conversation]:
        """Each conversation once, in the source's order."""
        seen: set[int] = set()
        for conversation in self._conversations():
            if self._is_new(conversation.id, seen):
                yield conversation

    def sample(self, limit: int | None, seed: int) -> Iterator[Conversation]:
        """Draw the conversations whose key, hashed with the seed, comes first."""
        drawn_by = self.importer.drawn_by or (lambda conversation: conversation.id)
        seen: set[int] = set()
        # The heap pops its smallest entry. Hashes are negated, so it pops the largest hash.
        heap: list[tuple[int, str]] = []
        held: dict[tuple[int, str], Conversation] = {}
        for conversation in self._conversations():
            drawn = drawn_by(conversation)
            if not self._is_new(f"{drawn} {conversation.id}", seen):
                continue
            self.usable += 1
            key = (-_hash(f"{seed}/{drawn}"), drawn)
            held[key] = conversation
            heapq.heappush(heap, key)
            if limit is not None and len(heap) > limit:
                del held[heapq.heappop(heap)]
        written: set[int] = set()
        for key in sorted(heap, reverse=True):
            # Two HH-RLHF pairs may share one side.
            if self._is_new(held[key].id, written):
                yield held[key]

    def _is_new(self, name: str, seen: set[int]) -> bool:
        number = _hash(name)
        if number in seen:
            self.left_out["duplicate conversation"] += 1
            return False
        seen.add(number)
        return True

    def refuse_nothing(self) -> None:
        """Raise an error that says that no row could be used, with the first reason."""
        if self.first_error is None:
            raise UserError(f"the source of {self.dataset} has no rows")
        raise UserError(f"no row of {self.dataset} can be used; first error: {self.first_error}")


def _hash(text: str) -> int:
    # With 64 bits per number, a set of 100,000 takes about 7 MB.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _first_checked(dataset: str, rows: Iterator[SourceRow], name: str) -> Iterator[SourceRow]:
    """Yield the rows, after a check that the first is not from another dataset."""
    first = next(rows, None)
    if first is None:
        return iter(())
    if not isinstance(first.value, LeftOut):
        _check_fields(dataset, frozenset(first.value), name, certain=False)
    return chain([first], rows)


def _check_fields(dataset: str, fields: frozenset[str], name: str, *, certain: bool) -> None:
    """Refuse the fields of another dataset; if ``certain``, also those that do not suffice."""
    if any(form <= fields for form in IMPORTERS[dataset].forms):
        return
    others = [
        other
        for other, importer in IMPORTERS.items()
        if any(form <= fields for form in importer.forms)
    ]
    if others:
        raise UserError(
            f"looks like {' or '.join(others)}, not {dataset}; import it under that name", path=name
        )
    if certain:
        forms = "; or ".join(", ".join(sorted(form)) for form in IMPORTERS[dataset].forms)
        present = ", ".join(sorted(fields)) or "none"
        raise UserError(f"{dataset} needs the fields {forms}; found: {present}", path=name)
