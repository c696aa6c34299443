"""A data folder: what `regreason build` writes, and training and evaluation read.

    DATA/train/<arm>.jsonl  DATA/validation/<arm>.jsonl  DATA/test.jsonl  DATA/manifest.json
    DATA/README.md, the dataset card, made from the manifest and not listed in it

and with ``--scopes`` also DATA/train/<scope>/<arm>.jsonl and the same under validation/.
The manifest lists the sha256 of every file, so its own sha256 stands for the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
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

MANIFEST = "manifest.json"
TEST = "test.jsonl"
Origin = Literal["generated", "rated"]
Leaks = Literal["keep", "remove"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Length(_Part):
    """The explanations of one arm in the train file, in words and, if known, tokens."""

    words_mean: float
    words_max: int
    tokens_mean: float | None = None
    tokens_max: int | None = None


class SplitCount(_Part):
    """How much one split holds; ``labels`` counts rows by label, by setting."""

    rows: int
    conversations: int
    groups: int
    labels: dict[str, dict[str, int]]


class Limits(_Part):
    """Where text was cut: in tokens of the tokenizer, or in words without one."""

    unit: Literal["tokens", "words"]
    max_prompt: int | None
    max_target: int | None


class Manifest(_Part):
    """What is in a data folder and how it came to be.

    Attributes:
        origin: ``generated`` for the mini benchmark, else ``rated``.
        note: What a reader of any number made from this data should know.
        at_most: The limit of conversations of a split (`regreason build --at-most`); None for all.
        raters: Their names; those of the rules start with ``rules-``.
        cut: Conversations shortened, by what was cut last, and explanations.
        neutralised: Places where text looked like a token or a marker.
        leaks: What happened to the places of an explanation that name a label (`leaks`).
        leaked: Their number by kind in the train and validation explanations as rated; the
            ``rows`` they are in; of these ``own_label``, which name the row's own label; rows
            whose explanation was ``removed`` in part; and rows ``dropped`` because nothing
            else was left of it. Empty in folders from before it was counted.
        source: Name and sha256 of the ratings file.
        declaration: The labels and settings of the task.
        explained_by: Who wrote explanations that the table did not have; None where nobody.
        files: sha256 of every data file.
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
    explained_by: list[str] | None = None
    files: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class DataFolder:
    """An opened data folder.

    Attributes:
        path: Where it is.
        manifest: What it says of itself.
        sha256: Of the manifest, and so of everything in the folder.
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
        """Which comes first in its targets, label or explanation."""
        return self.manifest.order

    @property
    def declaration(self) -> Declaration:
        """The labels and settings of its task."""
        return self.manifest.declaration

    def settings(self) -> list[Setting]:
        """The (dataset, axis) pairs that its test file holds, in the declared order."""
        labels = self.manifest.counts["test"].labels
        declared = self.declaration
        return [setting for setting in declared.settings if declared.task_name(*setting) in labels]

    def verify(self, name: str) -> str:
        """Check one file against the manifest.

        Args:
            name: Such as ``test.jsonl`` or ``train/explanation.jsonl``.

        Returns:
            Its sha256.

        Raises:
            UserError: It is not listed, not there, or not what was written.
        """
        return _verified(self, name)

    def rows(self, name: str) -> Iterator[Row]:
        """Stream one file's rows, after `verify`.

        Raises:
            UserError: As `verify`, or a row is no row.
        """
        self.verify(name)
        return read_records(self.path / name, Row, declaration=self.declaration)


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
    found = file_sha256(path)
    if found != known:
        raise UserError(
            "does not match the manifest (it was changed after it was built); "
            "build the data again with `regreason build`",
            path=path,
        )
    return found


def open_data_folder(path: str | Path) -> DataFolder:
    """Open a data folder.

    Raises:
        UserError: It is not there, is no data folder, or its manifest is broken.
    """
    folder = Path(path)
    file = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(
            "no such data folder; `regreason build RATINGS --out DATA` makes one", path=folder
        )
    if not file.is_file():
        raise UserError(
            f"is no data folder: it has no {MANIFEST}; `regreason build RATINGS --out DATA` "
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
