"""The first pass over labelled documents: checks, splits and sorts them into an index.

The index takes a few hundred bytes per document, whatever the length of its text. This pass also
copies the documents to a file, from which the second pass reads them in the order of the index: a
table, a gzipped file and a generator cannot be read in another order than their own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern

from regreason_plugin.annotate.scores import ScoreTable
from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import validate
from regreason_plugin.core.records import Rating
from regreason_plugin.core.splits import SPLITS, Split
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data_folder.folder import SplitCount
from regreason_plugin.data_folder.sources import Source
from regreason_plugin.data_folder.split import PARTS, assign, beyond, draw


@dataclass(frozen=True, slots=True)
class Entry:
    """One document: the fields by which it is sorted and split, and its position.

    Attributes:
        number: The number of its line or row in the source.
        offset: The position of its first byte in the file that the first pass writes.
    """

    dataset: str
    id: str
    axis: str
    group: str
    label: int
    number: int
    offset: int


@dataclass
class Index:
    """All documents of a source, sorted by dataset, id and axis.

    Attributes:
        source: The source of the documents.
        file: The file with the fields of each document, one JSON object per line, in the order
            of the source.
        entries: One entry per document, sorted, so that no output depends on the source's order.
        split: The split of each group.
        stratified_for: The labels that a split without regard to labels would leave out of train,
            validation or test, so that the split is stratified by label; empty if it is not.
        validation_drawn: Whether the user sets train and test, and validation is drawn from train.
        raters: The names of all raters, sorted.
        generated: Whether any document is from the mini benchmark.
        sha256: The sha256 of the documents' sorted digests, the same for any order.
        scores: The raters' scores.
        dropped: The number of documents left out because they have no explanation to train on.
    """

    source: Source
    file: Path
    entries: list[Entry] = field(default_factory=list)
    split: dict[str, Split] = field(default_factory=dict)
    stratified_for: list[str] = field(default_factory=list)
    validation_drawn: bool = False
    raters: list[str] = field(default_factory=list)
    generated: bool = False
    sha256: str = ""
    scores: ScoreTable = field(default_factory=ScoreTable)
    dropped: int = 0

    @property
    def declaration(self) -> Declaration:
        """The labels and settings of the task."""
        return self.source.declaration

    def error(self, message: str, entry: Entry, field: str | None = None) -> UserError:
        """An error message about one document, with its position in the source."""
        return UserError(message, path=self.source.place(entry.number), field=field)

    @contextmanager
    def reader(self) -> Iterator[Callable[[Entry], Rating]]:
        """Open the documents, and return a function that reads the document of an entry."""
        with self.file.open("rb") as stream:

            def read(entry: Entry) -> Rating:
                stream.seek(entry.offset)
                return Rating.model_validate(json.loads(stream.readline()))

            yield read

    def count(self, split: Split) -> SplitCount:
        """Rows, conversations, groups and labels of one split."""
        entries = [entry for entry in self.entries if self.split[entry.group] == split]
        labels: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for entry in entries:
            labels[self.declaration.task_name(entry.dataset, entry.axis)][str(entry.label)] += 1
        return SplitCount(
            rows=len(entries),
            conversations=len({entry.id for entry in entries}),
            groups=len({entry.group for entry in entries}),
            labels={name: dict(sorted(count.items())) for name, count in sorted(labels.items())},
        )


def index_documents(
    source: Source,
    file: Path,
    seed: int,
    on_row: Callable[[], object] = lambda: None,
    explains: Callable[[str], bool] = lambda explanation: True,
    parts: Mapping[Split, float] = PARTS,
    limits: Mapping[Split, int] | None = None,
) -> Index:
    """Read all documents once: check, sort and split them.

    Args:
        source: The documents.
        file: The file to which their fields are copied, for the second pass.
        seed: The seed of the split.
        on_row: Called for each document.
        explains: Whether a document with this explanation can be trained on. Train and validation
            documents that cannot are dropped after the split, so that they still shape it.
        parts: The relative size of each split.
        limits: The most conversations of a split; groups beyond it are left out as a whole.

    Raises:
        UserError: A document is invalid, two documents contradict each other, there are too few
            conversations for three splits, or a label has too few groups for them.
    """
    index = Index(source, file)
    first_places: dict[tuple[str, str], int] = {}
    conversations: dict[str, tuple[int, bytes, str]] = {}
    groups: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    raters: set[str] = set()
    digests: list[bytes] = []
    unexplained: set[tuple[str, str]] = set()
    offset = 0

    with atomic_writer(file) as stream:
        for number, value in source.documents:
            place = source.place(number)
            rating = validate(Rating, value, place, declaration=source.declaration)
            # Interning keeps one copy of each id and group in memory.
            row_id, group_id = intern(rating.id), intern(rating.group)
            earlier = first_places.setdefault((row_id, rating.axis), number)
            if earlier != number:
                raise UserError(
                    f"id {row_id!r} with axis {rating.axis!r} is also on {source.unit} {earlier}; "
                    "an id can have one row per axis",
                    path=place,
                    field="id",
                )
            text = json.dumps([value["conversation"], value.get("context"), value["dataset"]])
            digest = hashlib.sha256(text.encode()).digest()
            if row_id not in conversations:
                conversations[row_id] = (number, digest, group_id)
                groups[group_id][rating.dataset] += 1
            first, known, group = conversations[row_id]
            if known != digest or group != group_id:
                what = "group" if known == digest else "conversation"
                raise UserError(
                    f"id {rating.id!r} has another {what} than on {source.unit} {first}; give each "
                    "conversation an id of its own",
                    path=place,
                    field=what,
                )
            index.entries.append(
                Entry(
                    dataset=intern(rating.dataset),
                    id=row_id,
                    axis=intern(rating.axis),
                    group=group_id,
                    label=rating.label,
                    number=number,
                    offset=offset,
                )
            )
            if not explains(rating.explanation):
                unexplained.add((row_id, rating.axis))
            index.scores.add(rating)
            raters.update(score.rater for score in rating.ratings)
            index.generated |= (rating.meta or {}).get("origin") == "generated"
            line = json.dumps(value, sort_keys=True).encode()
            digests.append(hashlib.sha256(line).digest())
            offset += stream.write(line + b"\n")
            on_row()

    index.entries.sort(key=lambda entry: (entry.dataset, entry.id, entry.axis))
    index.raters = sorted(raters)
    _set_splits(index, groups, seed, parts)
    left_out = beyond(groups, index.split, seed, limits or {})
    index.entries = [entry for entry in index.entries if entry.group not in left_out]
    whole = len(index.entries)
    index.entries = [
        entry
        for entry in index.entries
        if (entry.id, entry.axis) not in unexplained or index.split[entry.group] == "test"
    ]
    index.dropped = whole - len(index.entries)
    index.sha256 = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    _check_splits(index, parts)
    return index


def _set_splits(
    index: Index,
    groups: Mapping[str, Mapping[str, int]],
    seed: int,
    parts: Mapping[Split, float],
) -> None:
    """Set the split of each group: the user's own, or one that is drawn."""
    declared = index.declaration
    if declared.rated:
        index.split = assign(groups, seed, parts)
        return
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in index.entries:
        labels[entry.group][declared.labels[entry.label - 1]] += 1
    if index.source.splits is None:
        _check_has_groups(index, labels)
        index.split, index.stratified_for = draw(groups, labels, seed, parts)
        return
    index.split = dict(index.source.splits.of_group)
    index.validation_drawn = "validation" not in index.split.values()
    if index.validation_drawn:
        train = [group for group, split in index.split.items() if split == "train"]
        share = parts["validation"]
        drawn, index.stratified_for = draw(
            {group: groups[group] for group in train},
            {group: labels[group] for group in train},
            seed,
            {"train": 1 - share, "validation": share},
        )
        index.split |= drawn


def _check_has_groups(index: Index, labels: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse a label that has fewer groups than there are splits."""
    rows: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    for by_label in labels.values():
        rows.update(by_label)
        groups.update(by_label.keys())
    small = [label for label in index.declaration.labels if groups[label] < len(SPLITS)]
    if small:
        raise UserError(few_groups(small, rows[small[0]], groups[small[0]]), path=index.source.path)


def few_groups(small: Sequence[str], rows: int, groups: int) -> str:
    """A sentence about labels that are too small for three splits, with what can be done.

    Args:
        small: The labels.
        rows: The number of rows of the first.
        groups: The number of groups of the first.
    """
    more = f" (and {len(small) - 1} more such labels)" if len(small) > 1 else ""
    return (
        f"label {small[0]!r} has {rows} row{'s' * (rows != 1)} in {groups} "
        f"group{'s' * (groups != 1)}{more}, too few to be in train, validation and test; add rows, "
        "map it to another label under `values` in the task.yml, take its rows out, or say with a "
        "column (`columns.split`) which rows are for what"
    )


def _check_splits(index: Index, parts: Mapping[Split, float]) -> None:
    """Refuse a setting without rows in one of the splits, and a label without train rows."""
    rows: dict[str, dict[Split, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    declared = index.declaration
    for entry in index.entries:
        rows[declared.task_name(entry.dataset, entry.axis)][index.split[entry.group]] += 1
    for setting, counts in sorted(rows.items()):
        for split, count in counts.items():
            if count == 0 and index.source.splits is not None:
                raise UserError(
                    f"has no {split} row that can be used; add rows to {split}",
                    path=index.source.path,
                )
            if count == 0:
                shares = " : ".join(f"{parts[part]:g}" for part in SPLITS)
                raise UserError(
                    f"{sum(counts.values())} rows of {setting} leave none for {split} "
                    f"(train : validation : test is {shares}, and groups stay whole); "
                    "add conversations from other groups",
                    path=index.source.path,
                )
    if declared.rated:
        return
    trained = {entry.label for entry in index.entries if index.split[entry.group] == "train"}
    for number, label in enumerate(declared.labels, start=1):
        if number not in trained:
            own = index.source.splits is not None
            raise UserError(
                f"no row with the label {label!r} is in the train split, so no model could learn "
                f"it; add rows with this label{' to train' if own else ', or use another seed'}",
                path=index.source.path,
            )
