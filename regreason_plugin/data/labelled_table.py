"""Streams the rows of a labelled table, cleaned and checked.

Repeated texts are found by a hash of each text; the texts themselves are not kept in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.look_alikes import check_twins, difference, find_twins, merged
from regreason_plugin.core.task_file import Columns, Data, Task
from regreason_plugin.data.cells import Kind, find_kinds, read_as, text_of, written
from regreason_plugin.data.groups import text_group
from regreason_plugin.data.row_readers import CSV, TABLES, file_rows, hub_rows
from regreason_plugin.data.source_rows import HubDataset, LeftOut, SourceRow, SourceRows
from regreason_plugin.data.text_cleaning import clean

LookAlikes = Literal["refuse", "merge", "keep"]

_LINES = (".jsonl", ".jsonl.gz")
# A column counts as missing if none of the first 100 JSON objects has its key.
_LOOKED_AT = 100
# Cells that are read by the kind of their whole column; all other cells are read one by one.
_BY_COLUMN = ("label", "id", "group")
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
        number: The number of the label in the task, from 1; 0 if no task lists the labels.
    """

    id: str
    group: str
    text: str
    label: str
    explanation: str | None
    line: int
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
    """

    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    blank: int = 0
    unlabelled: int = 0
    duplicates: int = 0
    explained: int = 0
    groups: int = 0
    merged: dict[str, str] = field(default_factory=dict)

    def merge(self, merged: dict[str, str]) -> None:
        """Count each label in ``merged`` as the label that it is merged into."""
        self.merged = merged
        for label, other in merged.items():
            self.labels[other] += self.labels.pop(label, 0)

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
    for row in read_table(task.data, task.columns, counts, values):
        if row.label not in number:
            raise UserError(
                f"label {row.label!r} is not a label of the task; "
                f"{_nearest_label(row.label, task.labels)}; add it to `labels`, or map it to a "
                "label under `values`",
                path=f"{task.data}, {unit_of(task.data)} {row.line}",
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

    Raises:
        UserError: See `read_labelled`; but any label is accepted.
    """
    rows = _opened(data, columns, option)
    named = columns.named()
    # The kinds depend on whole columns, so the table is read once before the main pass.
    by_column = [named[what] for what in _BY_COLUMN if what in named]
    kinds = find_kinds(rows, by_column, lambda: _source(data, columns, option))
    reader = _Reader(columns, rows.classes, kinds)
    values = reader.of_values(values or {}, data)
    seen = _Seen(data, columns)
    for row in rows.rows:
        if isinstance(row.value, LeftOut):
            raise row.error(row.value)
        counts.rows += 1
        cells = reader.cells(row, row.value)
        text = cells["text"]
        label = values.get(cells["label"], cells["label"])
        if not text:
            counts.blank += 1
        elif not label:
            counts.unlabelled += 1
        elif seen.before(text, label, row):
            counts.duplicates += 1
        else:
            explanation = cells["explanation"]
            record = TableRow(
                id=seen.new_id(cells["id"], text, row),
                group=cells["group"] or text_group(text),
                text=text,
                label=label,
                explanation=explanation or None,
                line=row.number,
            )
            seen.groups.add(hashlib.sha256(record.group.encode()).digest()[:8])
            counts.labels[label] += 1
            counts.explained += bool(explanation)
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
    seen.check_end(counts.merged)
    _check_whole(data, columns, counts)


def _source(data: Data, columns: Columns, option: str) -> SourceRows:
    if data.path is not None:
        return file_rows(data.path, frozenset(columns.named().values()), TABLES)
    assert data.hub is not None
    return hub_rows(HubDataset(data.hub, data.config), data.split, option)


def _opened(data: Data, columns: Columns, option: str) -> SourceRows:
    """The rows of a table, after a check that it has every column."""
    rows = _source(data, columns, option)
    first = []
    fields = rows.fields
    if fields is None:
        first = list(islice(rows.rows, _LOOKED_AT))
        fields = frozenset(chain(*(row.value for row in first if isinstance(row.value, dict))))
        if not fields and first and isinstance(first[0].value, LeftOut):
            raise first[0].error(first[0].value)
    for what, name in columns.named().items():
        if name not in fields:
            raise UserError(
                f"has no column {name!r} for the {what}; {nearest(name, sorted(fields))}",
                path=str(data),
            )
    return rows._replace(rows=chain(first, rows.rows))


class _Reader(NamedTuple):
    """Reads the cells of a row by the kinds of their columns."""

    columns: Columns
    classes: Mapping[str, Sequence[str]]
    kinds: Mapping[str, Kind]

    def cells(self, row: SourceRow, value: Mapping[str, Any]) -> dict[str, str]:
        """The cells by role (text, label, ...); empty if a cell or its column is missing.

        Raises:
            UserError: A cell is neither a text nor a number.
        """
        cells = dict.fromkeys(("explanation", "id", "group"), "")
        for what, name in self.columns.named().items():
            try:
                cells[what] = self._cell(what, name, value.get(name))
            except ValueError as error:
                raise row.error(LeftOut(str(error), field=name)) from None
        return cells

    def _cell(self, what: str, name: str, value: Any) -> str:
        if what not in _BY_COLUMN:
            return text_of(value)
        text = read_as(self.kinds[name], written(value, self.classes.get(name, ())))
        if what == "label":
            return clean(text)
        return text.strip() if what == "group" else text

    def of_values(self, values: Mapping[str, str], data: Data) -> dict[str, str]:
        """The keys of a task's ``values`` in this table's spelling, such as ``1`` for ``1.0``."""
        kind = self.kinds[self.columns.label]
        read: dict[str, str] = {}
        for value, label in values.items():
            plain = read_as(kind, value)
            if plain and read.setdefault(plain, label) != label:
                raise UserError(
                    f"all labels are {kind.value}, so {value!r} is read as {plain!r}, which "
                    f"cannot mean both {read[plain]!r} and {label!r}; change `labels` or `values`",
                    path=str(data),
                    field=self.columns.label,
                )
        return read


class _Seen:
    """The texts and ids of earlier rows, as hashes."""

    def __init__(self, data: Data, columns: Columns) -> None:
        self.data = data
        self.columns = columns
        self.texts: dict[bytes, tuple[str, int]] = {}
        self.ids: dict[bytes, int] = {}
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
            line = self.ids.setdefault(digest, row.number)
            if line != row.number:
                raise UserError(
                    f"id {row_id!r} is also the id of {row.unit} {line}, which has another text; "
                    "ids must be unique",
                    path=f"{self.data}, {row.unit} {row.number}",
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
    if not counts.kept:
        if counts.blank:
            raise wrong(f"all of its {counts.rows} texts are empty", columns.text)
        raise wrong(f"none of its {counts.rows} rows has a label", columns.label)
    if len(counts.labels) == 1:
        (only,) = counts.labels
        raise wrong(f"all rows have the label {only!r}; a task needs two", columns.label)
    single = [label for label, number in counts.labels.items() if number == 1]
    if single:
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
