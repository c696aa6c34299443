"""The first pass over labelled documents: checks, splits and sorts them into an index.

The index takes a few hundred bytes per document, whatever the length of its text. This pass also
copies the documents to a file, from which the second pass reads them in the order of the index: a
table, a gzipped file and a generator cannot be read in another order than their own.
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
from regreason_plugin.core.splits import SPLITS, Split
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data_folder.folder import SplitCount
from regreason_plugin.data_folder.sources import Source
from regreason_plugin.data_folder.split import PARTS, assign, beyond


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
        UserError: A document is invalid, two documents contradict each other, or there are too
            few conversations for three splits.
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
    """Refuse a setting without rows in one of the splits, and a label without train rows."""
    rows: dict[str, dict[Split, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    declared = index.declaration
    for entry in index.entries:
        rows[declared.task_name(entry.dataset, entry.axis)][index.split[entry.group]] += 1
    for setting, counts in sorted(rows.items()):
        for split, count in counts.items():
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
            raise UserError(
                f"no row with the label {label!r} is in the train split, so no model could learn "
                "it; add rows with this label, or use another seed"
            )
