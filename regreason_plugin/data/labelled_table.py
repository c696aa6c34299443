"""Streams the rows of a labelled table, cleaned and checked.

Repeated texts are found by a hash of each text; the texts themselves are not kept in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.look_alikes import check_twins, difference, find_twins, merged
from regreason_plugin.core.splits import SPLITS, OnOverlap, Split
from regreason_plugin.core.task_file import Columns, Data, Task
from regreason_plugin.data.cell_reader import BY_COLUMN, CellReader
from regreason_plugin.data.cells import find_kinds
from regreason_plugin.data.groups import text_group
from regreason_plugin.data.own_splits import Overlap, counted
from regreason_plugin.data.row_readers import CSV
from regreason_plugin.data.source_rows import LeftOut, SourceRow
from regreason_plugin.data.task_tables import open_tables

LookAlikes = Literal["refuse", "merge", "keep"]

_LINES = (".jsonl", ".jsonl.gz")
# A class needs as many groups to be in train, validation and test.
FEW_GROUPS = len(SPLITS)
# A column with more different values has texts or numbers, not labels.
MOST_LABELS = 1000


class TableRow(NamedTuple):
    """A row of a labelled table.

    Attributes:
        id: The cell of the id column, or a hash of the text.
        group: The cell of the group column, or a hash of the text without case and punctuation.
        text: The text, cleaned in the same way as imported conversations.
        label: The label.
        explanation: The explanation; None if the row has none.
        line: The number of the row's line or row in the table.
        source: The table that the row is from, for messages.
        split: The split that the user puts the row in; None without splits of the user's own.
        number: The number of the label in the task, from 1; 0 if no task lists the labels.
    """

    id: str
    group: str
    text: str
    label: str
    explanation: str | None
    line: int
    source: str = ""
    split: Split | None = None
    number: int = 0


@dataclass
class Counts:
    """The numbers of rows that were read, kept and dropped.

    Attributes:
        rows: All rows.
        labels: Kept rows per label.
        blank: Rows dropped because they have no text.
        unlabelled: Rows dropped because they have no label.
        duplicates: Rows dropped because an earlier row has the same text and label.
        explained: Kept rows with an explanation.
        groups: The number of groups of the kept rows.
        merged: For each label that was counted as another one because they look the same, that
            other label.
        label_groups: Up to `FEW_GROUPS` groups of the kept rows of each label, as hashes.
        splits: Kept rows per label in each split, if the user sets the splits.
        spellings: The names of splits that rows have, such as ``dev``, and the splits they mean.
        overlap: Rows left out of a split of the user's own because another split has their text
            or group.
    """

    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    blank: int = 0
    unlabelled: int = 0
    duplicates: int = 0
    explained: int = 0
    groups: int = 0
    merged: dict[str, str] = field(default_factory=dict)
    label_groups: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    splits: dict[Split, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    spellings: dict[str, Split] = field(default_factory=dict)
    overlap: Counter[Split] = field(default_factory=Counter)

    def merge(self, merged: dict[str, str]) -> None:
        """Count each label in ``merged`` as the label that it is merged into."""
        self.merged = merged
        for label, other in merged.items():
            self.labels[other] += self.labels.pop(label, 0)
            self.label_groups[other] |= self.label_groups.pop(label, set())
            for labels in self.splits.values():
                labels[other] += labels.pop(label, 0)

    def add(self, row: TableRow) -> None:
        """Count a kept row."""
        self.labels[row.label] += 1
        self.explained += bool(row.explanation)
        groups = self.label_groups[row.label]
        if len(groups) < FEW_GROUPS:
            groups.add(_group_hash(row.group))
        if row.split is not None:
            self.splits[row.split][row.label] += 1

    @property
    def kept(self) -> int:
        """The number of kept rows."""
        return self.labels.total()


def read_labelled(task: Task, counts: Counts | None = None) -> Iterator[TableRow]:
    """Stream the rows of a task's table.

    Args:
        task: The task, from `task_file.read_task`.
        counts: The counts, which are filled while the table is read.

    Raises:
        UserError: The table cannot be read, or it does not fit the task: a column is missing, a
            label is only in the table or only in the task, a label has a single row, or a text has
            two labels. Faults that only the whole table shows are raised after its last row.
    """
    counts = counts if counts is not None else Counts()
    number = {label: place for place, label in enumerate(task.labels, start=1)}
    values = {**dict(zip(task.labels, task.labels, strict=True)), **task.values}
    on_overlap = task.split.on_overlap
    for row in read_table(task.data, task.columns, counts, values, on_overlap=on_overlap):
        if row.label not in number:
            raise UserError(
                f"label {row.label!r} is not a label of the task; "
                f"{_nearest_label(row.label, task.labels)}; add it to `labels`, or map it to a "
                "label under `values`",
                path=f"{row.source}, {unit_of(task.data)} {row.line}",
                field=task.columns.label,
            )
        yield row._replace(number=number[row.label])
    for label in task.labels:
        if label not in counts.labels:
            raise UserError(
                f"no row has the task's label {label!r}; remove it from `labels`, or map a value "
                "of the column to it under `values`",
                path=str(task.data),
                field=task.columns.label,
            )


def read_table(
    data: Data,
    columns: Columns,
    counts: Counts,
    values: Mapping[str, str] | None = None,
    option: str = "`data: {path: FILE}`",
    twins: LookAlikes = "keep",
    on_overlap: OnOverlap = "refuse",
) -> Iterator[TableRow]:
    """Stream the rows of a table whose labels are not known yet.

    Args:
        data: The table.
        columns: The columns to read.
        counts: The counts, which are filled while the table is read.
        values: The label for each value of the label column that is not a label itself.
        option: The option that names a local file instead of a Hub dataset, for messages.
        twins: The treatment of labels that look the same: refuse them, merge them into the one
            with the most rows (after the last row, in the counts), or keep them apart.
        on_overlap: What happens if two splits of the user's own share a text or a group
            (`task_file.SplitRule`).

    Raises:
        UserError: See `read_labelled`; but any label is accepted.
    """
    rows = open_tables(data, columns, option)
    named = columns.named()
    # The kinds depend on whole columns, so the table is read once before the main pass.
    by_column = [named[what] for what in BY_COLUMN if what in named]
    kinds = find_kinds(rows, by_column, lambda: open_tables(data, columns, option))
    reader = CellReader(columns, rows.classes, kinds)
    values = reader.of_values(values or {}, data)
    seen = _Seen(data, columns)
    overlap = Overlap(counts.overlap)
    if data.test is not None or columns.split is not None:
        overlap.read(open_tables(data, columns, option), reader)
    for row in rows.rows:
        if isinstance(row.value, LeftOut):
            raise row.error(row.value)
        counts.rows += 1
        cells = reader.cells(row, row.value)
        text = cells["text"]
        label = values.get(cells["label"], cells["label"])
        split = reader.split(row, cells["split"], counts.spellings)
        if not text:
            counts.blank += 1
        elif not label:
            counts.unlabelled += 1
        elif split and overlap.finds(split, row, cells):
            continue
        elif seen.before(text, label, row):
            counts.duplicates += 1
        else:
            record = TableRow(
                id=seen.new_id(cells["id"], text, row),
                group=cells["group"] or text_group(text),
                text=text,
                label=label,
                explanation=cells["explanation"] or None,
                line=row.number,
                source=row.source,
                split=split,
            )
            seen.groups.add(_group_hash(record.group))
            counts.add(record)
            if len(counts.labels) > MOST_LABELS:
                raise UserError(
                    f"has more than {MOST_LABELS} different values; is it really the label column?",
                    path=str(data),
                    field=columns.label,
                )
            yield record
    counts.groups = len(seen.groups)
    # Labels all of whose rows repeat an earlier text have no count, but must be checked as well.
    repeated = (label for pair in seen.contradictions for label in pair)
    labels = {**dict.fromkeys(repeated, 0), **counts.labels}
    if twins == "refuse":
        _refuse_twins(data, columns, labels)
    elif twins == "merge":
        counts.merge(merged(labels))
    overlap.check(on_overlap, str(data))
    seen.check_end(counts.merged)
    _check_whole(data, columns, counts)


def _group_hash(group: str) -> bytes:
    return hashlib.sha256(group.encode()).digest()[:8]


class _Seen:
    """The texts and ids of earlier rows, as hashes."""

    def __init__(self, data: Data, columns: Columns) -> None:
        self.data = data
        self.columns = columns
        self.texts: dict[bytes, tuple[str, int]] = {}
        self.ids: dict[bytes, tuple[str, int]] = {}
        self.groups: set[bytes] = set()
        # For two labels of one text: the number of rows, and a description of the first.
        self.contradictions: dict[tuple[str, str], tuple[int, str]] = {}

    def before(self, text: str, label: str, row: SourceRow) -> bool:
        """Whether an earlier row has this text; one with another label is noted for the end."""
        digest = hashlib.sha256(text.encode()).digest()[:16]
        known, line = self.texts.setdefault(digest, (label, row.number))
        if line == row.number:
            return False
        if known != label:
            first = (
                f"{text[:60]!r}, is {known!r} in {row.unit} {line} and {label!r} in {row.unit} "
                f"{row.number}"
            )
            number, first = self.contradictions.get((known, label), (0, first))
            self.contradictions[known, label] = number + 1, first
        return True

    def new_id(self, given: str, text: str, row: SourceRow) -> str:
        """The row's id, or a hash of its text if it has none. Refuses the id of another row."""
        row_id = given or f"text-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if self.columns.id is not None:
            digest = hashlib.sha256(row_id.encode()).digest()[:16]
            place = row.source, row.number
            known = self.ids.setdefault(digest, place)
            if known != place:
                table = "" if known[0] == row.source else f" of {known[0]}"
                raise UserError(
                    f"id {row_id!r} is also the id of {row.unit} {known[1]}{table}, which has "
                    "another text; ids must be unique",
                    path=f"{row.source}, {row.unit} {row.number}",
                    field=self.columns.id,
                )
        return row_id

    def check_end(self, merged: Mapping[str, str]) -> None:
        """Refuse texts with two different labels, unless these were merged into one."""
        contradictions = [
            contradiction
            for labels, contradiction in self.contradictions.items()
            if len({merged.get(label, label) for label in labels}) > 1
        ]
        if contradictions:
            number = sum(rows for rows, _ in contradictions)
            rows = "row repeats" if number == 1 else "rows repeat"
            raise UserError(
                f"{number} {rows} an earlier text with another label; the first, "
                f"{contradictions[0][1]}; keep one row per text",
                path=str(self.data),
            )


def _refuse_twins(data: Data, columns: Columns, labels: Iterable[str]) -> None:
    try:
        check_twins(
            labels,
            "add --merge-labels to make them one label, spelled as in most rows, or --keep-labels "
            "to keep them apart",
        )
    except ValueError as error:
        raise UserError(str(error), path=str(data), field=columns.label) from None


def _check_whole(data: Data, columns: Columns, counts: Counts) -> None:
    """Refuse a table with a fault that only the whole table shows."""

    def wrong(message: str, field: str | None = None) -> UserError:
        return UserError(message, path=str(data), field=field)

    if not counts.rows:
        raise wrong("has no rows")
    if not counts.kept and not counts.overlap:
        if counts.blank:
            raise wrong(f"all of its {counts.rows} texts are empty", columns.text)
        raise wrong(f"none of its {counts.rows} rows has a label", columns.label)
    for split in ("train", "test") if counts.splits else ():
        if split not in counts.splits:
            left = f"; {counted(counts.overlap)} a text or a group" if counts.overlap else ""
            raise wrong(
                f"no row is in {split}{left}; mark or add rows for {split}, because own splits "
                "need both train and test rows",
                columns.split,
            )
    if len(counts.labels) == 1:
        (only,) = counts.labels
        raise wrong(f"all rows have the label {only!r}; a task needs two", columns.label)
    single = [label for label, number in counts.labels.items() if number == 1]
    if single and not counts.splits:
        more = f" (and {len(single) - 1} more such labels)" if len(single) > 1 else ""
        raise wrong(
            f"label {single[0]!r} has one row{more}, too few for training and testing; add rows, "
            "remove it, or map it to another label, in the table or under `values` in a task.yml",
            columns.label,
        )
    if columns.explanation and not counts.explained:
        raise wrong(
            f"is empty in all {counts.kept} rows; leave out the explanation column",
            columns.explanation,
        )


def _nearest_label(label: str, known: Sequence[str]) -> str:
    for known_label in known:
        if find_twins([known_label, label]):
            return f"it looks the same as one of them: {difference(label, known_label)}"
    return nearest(label, list(known))


def unit_of(data: Data) -> str:
    """The unit in which the rows of a table are numbered: ``line`` or ``row``."""
    return "line" if data.path and data.path.name.lower().endswith((*CSV, *_LINES)) else "row"
