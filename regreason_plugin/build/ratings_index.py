"""First pass over a ratings file: check every line, and remember where each one is.

Texts are not kept: the index is a few hundred bytes a row, whatever the texts' length.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import BinaryIO

from regreason_plugin.annotate.scores import ScoreTable
from regreason_plugin.build.split import PARTS, SPLITS, Split, assign
from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import check_unique, parse_object, read_objects, validate
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.core.records import Rating
from regreason_plugin.core.whole_files import writing


@dataclass(frozen=True, slots=True)
class Entry:
    """One rating: what sorts and splits it, and where its line is."""

    dataset: str
    id: str
    axis: str
    group: str
    label: int
    line: int
    offset: int


@dataclass
class Index:
    """All ratings of a file, sorted by dataset, id and axis.

    Attributes:
        path: The file, for messages.
        entries: Sorted, so that nothing downstream depends on the file's order.
        split: The split of each group.
        raters: Names seen, sorted.
        generated: Whether any conversation is the mini benchmark's.
        sha256: Of the sorted digests of the lines: the same for rows in any order.
        scores: What the raters gave.
        dropped: Rows left out since no explanation is left to train on.
        declaration: The labels and settings of the task.
    """

    path: Path
    declaration: Declaration = EIGHTEEN
    entries: list[Entry] = field(default_factory=list)
    split: dict[str, Split] = field(default_factory=dict)
    raters: list[str] = field(default_factory=list)
    generated: bool = False
    sha256: str = ""
    scores: ScoreTable = field(default_factory=ScoreTable)
    dropped: int = 0

    @contextmanager
    def reader(self) -> Iterator[Callable[[Entry], Rating]]:
        """Open the file for reading entries in any order."""
        with _seekable(self.path) as stream:

            def read(entry: Entry) -> Rating:
                stream.seek(entry.offset)
                value = parse_object(stream.readline(), self.path, entry.line)
                return validate(Rating, value, self.path, entry.line, self.declaration)

            yield read


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    # Seeking back in a gzip stream starts from its beginning each time.
    if path.suffix.lower() != ".gz":
        with path.open("rb") as stream:
            yield stream
        return
    with gzip.open(path) as packed, tempfile.TemporaryFile() as plain:
        while block := packed.read(1 << 20):
            with writing(Path(tempfile.gettempdir())):
                plain.write(block)
        with writing(Path(tempfile.gettempdir())):
            plain.flush()
        yield plain


def index_ratings(
    path: Path,
    seed: int,
    on_row: Callable[[], object] = lambda: None,
    explains: Callable[[str], bool] = lambda explanation: True,
    declaration: Declaration = EIGHTEEN,
    parts: Mapping[Split, float] = PARTS,
) -> Index:
    """Read a ratings file once: check it, sort it, split it.

    Args:
        path: The file.
        seed: Of the split.
        on_row: Called for each row.
        explains: Whether an explanation can be trained on. Train and validation rows without
            one are dropped, after the split, so that it is the same as with them.
        declaration: The labels and settings of the task.
        parts: How much each split gets.

    Raises:
        UserError: A line is wrong, two lines contradict each other, or there are too
            few conversations for three splits.
    """
    index = Index(path, declaration)
    seen: dict[tuple[str, str], int] = {}
    conversations: dict[str, tuple[int, bytes, str]] = {}
    groups: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    raters: set[str] = set()
    digests: list[bytes] = []
    unexplained: set[tuple[str, str]] = set()

    for line, offset, value in read_objects(path):
        rating = validate(Rating, value, path, line, declaration)
        # One copy of each id and group, however many rows and tables hold it.
        row_id, group_id = intern(rating.id), intern(rating.group)
        value["id"] = row_id
        check_unique(seen, value, path, line)
        text = json.dumps([value["conversation"], value.get("context"), value["dataset"]])
        digest = hashlib.sha256(text.encode()).digest()
        if row_id not in conversations:
            conversations[row_id] = (line, digest, group_id)
            groups[group_id][rating.dataset] += 1
        first, known, group = conversations[row_id]
        if known != digest or group != group_id:
            what = "group" if known == digest else "conversation"
            raise UserError(
                f"id {rating.id!r} has another {what} than on line {first}; one id is one "
                "conversation",
                path=path,
                line=line,
                field=what,
            )
        index.entries.append(
            Entry(
                dataset=intern(rating.dataset),
                id=row_id,
                axis=intern(rating.axis),
                group=group_id,
                label=rating.label,
                line=line,
                offset=offset,
            )
        )
        if not explains(rating.explanation):
            unexplained.add((row_id, rating.axis))
        index.scores.add(rating)
        raters.update(given.rater for given in rating.ratings)
        index.generated |= (rating.meta or {}).get("origin") == "generated"
        digests.append(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest())
        on_row()

    index.entries.sort(key=lambda entry: (entry.dataset, entry.id, entry.axis))
    index.raters = sorted(raters)
    index.split = assign(groups, seed, parts)
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
    found: dict[str, dict[Split, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    for entry in index.entries:
        name = index.declaration.task_name(entry.dataset, entry.axis)
        found[name][index.split[entry.group]] += 1
    for setting, counts in sorted(found.items()):
        for split, count in counts.items():
            if count == 0:
                shares = " : ".join(f"{parts[part]:g}" for part in SPLITS)
                raise UserError(
                    f"{sum(counts.values())} ratings for {setting} leave none for {split} "
                    f"(train : validation : test is {shares}, whole groups only); "
                    "add conversations from other groups",
                    path=index.path,
                )
    if index.declaration is EIGHTEEN:
        return  # (A label that nobody gave is no mistake of a rating's.)
    trained = {entry.label for entry in index.entries if index.split[entry.group] == "train"}
    for number, label in enumerate(index.declaration.labels, start=1):
        if number not in trained:
            raise UserError(
                f"no row with the label {label!r} falls into the train split, so it could not be "
                "learnt; add rows of it, or take another seed"
            )
