"""The data folder, which `regreason build` writes and training and evaluation read.

    DATA/train/<arm>.jsonl  DATA/validation/<arm>.jsonl  DATA/test.jsonl  DATA/manifest.json
    DATA/README.md, the dataset card, made from the manifest and not listed in it

With ``--scopes`` it also has DATA/train/<scope>/<arm>.jsonl, and the same under validation/.
The manifest lists the sha256 of every data file, so its own sha256 identifies the whole folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from regreason_plugin.core.declaration import Declaration, Setting
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256, parse_object, read_records, validate
from regreason_plugin.core.prompt import Order
from regreason_plugin.core.records import Row
from regreason_plugin.core.splits import OnOverlap, Split

MANIFEST = "manifest.json"
TEST = "test.jsonl"
# How many of the labels that a split lacks a sentence names.
_SHOWN = 5
Origin = Literal["generated", "rated"]
Leaks = Literal["keep", "remove"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Length(_Part):
    """The lengths of one arm's texts in the train file, in words and, with a tokenizer, tokens."""

    words_mean: float
    words_max: int
    tokens_mean: float | None = None
    tokens_max: int | None = None


class SplitCount(_Part):
    """The size of one split; ``labels`` maps each setting to its number of rows per label."""

    rows: int
    conversations: int
    groups: int
    labels: dict[str, dict[str, int]]


class Limits(_Part):
    """The lengths to which texts were cut: in tokens, or in words without a tokenizer."""

    unit: Literal["tokens", "words"]
    max_prompt: int | None
    max_target: int | None


class OwnSplits(_Part):
    """Splits that the user set.

    Attributes:
        column: The column that named the split of each row; None if each split was a table.
        validation: Whether the validation rows are the user's own or drawn from the train rows.
        spellings: Names of splits other than ours, such as ``dev``, and the split they mean.
        on_overlap: What was to happen to a text or a group in two splits: ``refuse`` or ``drop``.
        dropped: The number of rows left out of each split for this reason.
    """

    column: str | None
    validation: Literal["own", "drawn"]
    spellings: dict[str, str]
    on_overlap: OnOverlap
    dropped: dict[str, int]


class Manifest(_Part):
    """The content of a data folder, and how it was built.

    Attributes:
        origin: ``generated`` for the mini benchmark, else ``rated``.
        note: A caution for readers of any number computed from this data; may be empty.
        at_most: The most conversations per split (`regreason build --at-most`); None for no limit.
        raters: The raters' names; those of the built-in rules start with ``rules-``.
        cut: The number of shortened conversations, by the part that was cut last, and of
            shortened explanations.
        neutralised: The number of places where text looked like a special token or a turn marker
            and was changed.
        leaks: Whether sentences of an explanation that name a label were kept or removed
            (`label_leaks`).
        leaked: The number of such places by kind, in the train and validation explanations as
            rated. ``rows``: the rows that contain any. ``own_label``: those among them that name
            the row's own label. ``removed``: rows whose explanation lost a part. ``dropped``:
            rows left out because nothing else remained of the explanation. Empty in folders built
            before these were counted.
        source: The name of the source and the sha256 of its sorted rows.
        declaration: The labels and settings of the task.
        own_splits: How the user set the splits; None if they were drawn.
        stratified: The labels because of which groups were drawn by label, since drawing without
            regard to labels would have left them out of a split; None if it was not necessary.
        explained_by: Who wrote the explanations that the table did not have; None if nobody did.
        files: The sha256 of every data file, by name.
    """

    format: Literal[1] = 1
    origin: Origin
    note: str
    seed: int
    at_most: dict[str, int] | None = None
    order: Order
    arms: list[str]
    mismatched: Literal["any", "same_label"]
    tokenizer: str | None
    limits: Limits
    raters: list[str]
    counts: dict[str, SplitCount]
    lengths: dict[str, Length]
    cut: dict[str, int]
    neutralised: dict[str, int]
    leaks: Leaks = "keep"
    leaked: dict[str, int] = Field(default_factory=dict)
    source: dict[str, str]
    declaration: Declaration
    own_splits: OwnSplits | None = None
    stratified: list[str] | None = None
    explained_by: list[str] | None = None
    files: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class DataFolder:
    """An opened data folder.

    Attributes:
        path: The folder.
        manifest: The folder's manifest.
        sha256: The sha256 of the manifest, which identifies the whole folder.
    """

    path: Path
    manifest: Manifest
    sha256: str

    @property
    def origin(self) -> Origin:
        """``generated`` or ``rated``."""
        return self.manifest.origin

    @property
    def order(self) -> Order:
        """Whether the label or the explanation comes first in the targets."""
        return self.manifest.order

    @property
    def declaration(self) -> Declaration:
        """The labels and settings of the task."""
        return self.manifest.declaration

    def settings(self) -> list[Setting]:
        """The (dataset, axis) pairs in the test file, in the declared order."""
        labels = self.manifest.counts["test"].labels
        declared = self.declaration
        return [setting for setting in declared.settings if declared.task_name(*setting) in labels]

    def absent_labels(self, split: Split) -> dict[str, list[str]]:
        """The labels that no row of a split has, by task; tasks whose rows have all are left out.

        A setting of rated data is left out, because raters need not give every score.
        """
        declared = self.declaration
        if declared.rated:
            return {}
        counts = self.manifest.counts[split].labels
        absent = {
            task: [
                label
                for number, label in enumerate(declared.labels, start=1)
                if not counts.get(task, {}).get(str(number))
            ]
            for task in (declared.task_name(*setting) for setting in declared.settings)
        }
        return {task: labels for task, labels in absent.items() if labels}

    def absence_notes(self, *splits: Split) -> list[str]:
        """A sentence for each split whose rows lack a label, with what follows from it."""
        return [
            absence_note(split, labels)
            for split in splits
            for labels in self.absent_labels(split).values()
        ]

    def verify(self, name: str) -> str:
        """Check one file against the manifest.

        Args:
            name: The file's name in the folder, such as ``train/explanation.jsonl``.

        Returns:
            The file's sha256.

        Raises:
            UserError: The manifest does not list the file, the file is missing, or it was
                changed after it was built.
        """
        return _verified(self, name)

    def rows(self, name: str) -> Iterator[Row]:
        """Verify one file, and stream its rows.

        Raises:
            UserError: See `verify`; or a row is invalid.
        """
        self.verify(name)
        return read_records(self.path / name, Row, declaration=self.declaration)


def absence_note(split: Split, labels: Sequence[str]) -> str:
    """A sentence about labels that no row of a split has.

    Args:
        split: The split.
        labels: The labels, at least one.
    """
    shown = ", ".join(f"{label!r:.60}" for label in labels[:_SHOWN])
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    named, them, each = (
        ("label", "it", "it") if len(labels) == 1 else ("labels", "them", "each of them")
    )
    return (
        f"no {split} row has the {named} {shown}{more}, so {split} scores say nothing about "
        f"{them}, and macro_f1 counts {each} as 0"
    )


@lru_cache(maxsize=64)
def _verified(folder: DataFolder, name: str) -> str:
    known = folder.manifest.files.get(name)
    path = folder.path / name
    if known is None:
        raise UserError(
            f"the manifest lists no {name!r}; it has {', '.join(folder.manifest.files)}",
            path=folder.path / MANIFEST,
        )
    if not path.is_file():
        raise UserError("is missing though the manifest lists it; build the data again", path=path)
    sha256 = file_sha256(path)
    if sha256 != known:
        raise UserError(
            "does not match the manifest (it was changed after it was built); "
            "build the data again with `regreason build`",
            path=path,
        )
    return sha256


def open_data_folder(path: str | Path) -> DataFolder:
    """Open a data folder.

    Raises:
        UserError: The folder does not exist, is not a data folder, or its manifest is broken.
    """
    folder = Path(path)
    file = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(
            "no such data folder; `regreason build RATINGS --out DATA` makes one", path=folder
        )
    if not file.is_file():
        raise UserError(
            f"is not a data folder: it has no {MANIFEST}; `regreason build RATINGS --out DATA` "
            "makes one",
            path=folder,
        )
    raw = file.read_bytes()
    value: dict[str, Any] = parse_object(raw, file, 1)
    if "declaration" not in value:
        raise UserError(
            "does not declare its task, so an older version of RegReason wrote it; build the data "
            "again with `regreason build`",
            path=file,
        )
    return DataFolder(folder, validate(Manifest, value, file, 1), hashlib.sha256(raw).hexdigest())
