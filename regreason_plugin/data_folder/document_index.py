"""First pass over labelled documents: check each one, and remember where it is.

Texts are not kept in memory: the index is a few hundred bytes a document, whatever the texts'
length. The second pass reads them in the index's order from a file that this one writes, since a
table, a gzipped file or a generator cannot be read in any order but its own.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern

from regreason_plugin.annotate.scores import ScoreTable
from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import validate
from regreason_plugin.core.records import Rating
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data_folder.folder import SplitCount
from regreason_plugin.data_folder.sources import Source
from regreason_plugin.data_folder.split import PARTS, SPLITS, Split, assign, beyond


@dataclass(frozen=True, slots=True)
class Entry:
    """One document: what sorts and splits it, and where it is.

    Attributes:
        number: Of its line or row in the source.
        offset: Of its bytes in the file that the first pass writes.
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
        source: Where they come from.
        file: Their fields, a JSON object a line, in the source's order.
        entries: Sorted, so that nothing downstream depends on the source's order.
        split: The split of each group.
        raters: Names seen, sorted.
        generated: Whether any document is the mini benchmark's.
        sha256: Of the sorted digests of the documents: the same for any order of them.
        scores: What the raters gave.
        dropped: Documents left out since no explanation is left to train on.
    """

    source: Source
    file: Path
    entries: list[Entry] = field(default_factory=list)
    split: dict[str, Split] = field(default_factory=dict)
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
        """A sentence on one document."""
        return UserError(message, path=self.source.place(entry.number), field=field)

    @contextmanager
    def reader(self) -> Iterator[Callable[[Entry], Rating]]:
        """Open the documents for reading in any order."""
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
        file: Where their fields are written, for the second pass.
        seed: Of the split.
        on_row: Called for each document.
        explains: Whether an explanation can be trained on. Train and validation rows without
            one are dropped, after the split, so that it is the same as with them.
        parts: How much each split gets.
        limits: The most conversations of a split; whole groups are left out beyond it.

    Raises:
        UserError: A document is wrong, two contradict each other, or there are too few
            conversations for three splits.
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
            # One copy of each id and group, however many rows and tables hold it.
            row_id, group_id = intern(rating.id), intern(rating.group)
            earlier = first_places.setdefault((row_id, rating.axis), number)
            if earlier != number:
                raise UserError(
                    f"id {row_id!r} and axis {rating.axis!r} stands on {source.unit} {earlier} "
                    "too; ids must be unique",
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
                    f"id {rating.id!r} has another {what} than on {source.unit} {first}; one id "
                    "is one conversation",
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
    index.split = assign(groups, seed, parts)
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


def _check_splits(index: Index, parts: Mapping[Split, float]) -> None:
    """Refuse a setting that some split would not hold at all, and a label without a train row."""
    rows: dict[str, dict[Split, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    declared = index.declaration
    for entry in index.entries:
        rows[declared.task_name(entry.dataset, entry.axis)][index.split[entry.group]] += 1
    for setting, counts in sorted(rows.items()):
        for split, count in counts.items():
            if count == 0:
                shares = " : ".join(f"{parts[part]:g}" for part in SPLITS)
                raise UserError(
                    f"{sum(counts.values())} ratings for {setting} leave none for {split} "
                    f"(train : validation : test is {shares}, whole groups only); "
                    "add conversations from other groups",
                    path=index.source.path,
                )
    if declared.rated:
        return
    trained = {entry.label for entry in index.entries if index.split[entry.group] == "train"}
    for number, label in enumerate(declared.labels, start=1):
        if number not in trained:
            raise UserError(
                f"no row with the label {label!r} falls into the train split, so it could not be "
                "learnt; add rows of it, or take another seed"
            )
