"""Families: train rows that share much of their prompt, which prefix packing trains together.

A family is what `regreason_prefix_packing` draws into the same batch. Its rows are found by their
prompts, which are the same in every arm, so every arm draws the same rows into the same steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.records import Row
from regreason_plugin.train.label_span import LabelPosition
from regreason_plugin.train.row_tokens import IGNORE

# Two rows of a group belong together if their prompts share at least this part of the shorter one.
_SHARED = 0.5


@dataclass(frozen=True)
class Family:
    """Rows that are trained in the same batch.

    Attributes:
        rows: Numbers of the rows, sorted by their prompts.
        distinct: Number of tokens of the rows, with those of shared prefixes counted once.
    """

    rows: tuple[int, ...]
    distinct: int


@dataclass(frozen=True)
class Families:
    """All families of a training.

    Attributes:
        families: The families in the order of their first rows; every row is in exactly one.
        shared: Number of tokens at the beginning that all prompts share, such as an instruction.
    """

    families: tuple[Family, ...]
    shared: int

    @property
    def rows(self) -> list[tuple[int, ...]]:
        """The rows of each family."""
        return [family.rows for family in self.families]

    @property
    def own_tokens(self) -> NDArray[np.int64]:
        """Number of distinct tokens of each family, without the prefix of all families."""
        return np.array([family.distinct - self.shared for family in self.families])

    def tokens(self, batches: int) -> int:
        """Number of tokens that the model reads in an epoch of that many batches."""
        return int(self.own_tokens.sum()) + batches * self.shared


@dataclass(frozen=True)
class TokenRow:
    """A train row as tokens.

    Attributes:
        ids: All tokens, ``[T]``.
        prompt: Number of leading tokens on which no loss is taken.
        owner: Dataset and id of the conversation; its axes are separate rows.
        group: The group, which may hold several conversations.
    """

    ids: NDArray[np.int32]
    prompt: int
    owner: tuple[str, str]
    group: str

    @property
    def key(self) -> bytes:
        """Bytes that sort as the tokens of the prompt do."""
        return self.ids[: self.prompt].astype(">i4").tobytes()


def token_rows(tokenized: Any, rows: Iterable[Row], place: LabelPosition) -> list[TokenRow]:
    """Join the rows of a tokenized dataset with the rows of a data folder, in the same order.

    Args:
        tokenized: A dataset with ``input_ids`` and ``labels``.
        rows: As many rows of the data folder.
        place: Position of the label in a row's target.

    Raises:
        UserError: The rows are not in the same order, because their labels differ.
    """
    columns = (
        (ids, labels)
        for batch in tokenized.select_columns(["input_ids", "labels"]).iter(1000)
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    )
    joined: list[TokenRow] = []
    label_of: dict[tuple[int, ...] | None, int] = {}
    for (ids, labels), row in zip(columns, rows, strict=True):
        prompt = int(np.argmax(np.asarray(labels) != IGNORE))
        if label_of.setdefault(place.of(ids[prompt:]), row.label) != row.label:
            raise UserError(
                f"tokenized row {len(joined)} does not have the label of row {row.id!r} of the "
                "file; delete the folder dataset_prepared_path and try again"
            )
        owner = row.dataset, row.id
        joined.append(TokenRow(np.asarray(ids, np.int32), prompt, owner, row.group))
    return joined


def find_families(
    rows: Sequence[TokenRow], *, most_rows: int | None = None, most_tokens: int | None = None
) -> Families:
    """Divide rows into families, each with as many rows as a batch may hold.

    Args:
        rows: All train rows.
        most_rows: Largest number of rows in a family; None for no limit.
        most_tokens: Largest number of distinct tokens in a family of several rows; None for no
            limit.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        groups[row.group].append(number)
    families: list[Family] = []
    for group in groups.values():
        for related in _related(rows, group):
            members: list[int] = []
            distinct = 0
            for number in related:
                new = len(rows[number].ids)
                added = new - (shared(rows[members[-1]], rows[number]) if members else 0)
                if members and (
                    (most_rows is not None and len(members) >= most_rows)
                    or (most_tokens is not None and distinct + added > most_tokens)
                ):
                    families.append(Family(tuple(members), distinct))
                    members, distinct, added = [], 0, new
                members.append(number)
                distinct += added
            families.append(Family(tuple(members), distinct))
    families.sort(key=lambda family: min(family.rows))
    # What the first and the last prompt share, all prompts between them share too.
    first, last = min(rows, key=lambda row: row.key), max(rows, key=lambda row: row.key)
    by_all = min(shared(first, last), first.prompt, last.prompt)
    return Families(tuple(families), by_all)


def shared_by_all(rows: Sequence[TokenRow]) -> int:
    """Number of tokens at the beginning that all prompts share, such as an instruction."""
    by_prompt = sorted(rows, key=lambda row: row.key)
    first, last = by_prompt[0], by_prompt[-1]
    return min(shared(first, last), first.prompt, last.prompt)


def _related(rows: Sequence[TokenRow], group: Sequence[int]) -> Iterator[list[int]]:
    """Divide a group into rows of one conversation, and of conversations with the same beginning.

    Yields:
        Numbers of rows, sorted by prompt, so that rows with a long common prefix are neighbours.
    """
    ordered = sorted(group, key=lambda number: (rows[number].key, number))
    family_of = {number: number for number in group}

    def first(number: int) -> int:
        while family_of[number] != number:
            number = family_of[number]
        return number

    by_owner: dict[tuple[str, str], int] = {}
    for before, number in zip([None, *ordered], ordered, strict=False):
        family_of[first(number)] = first(by_owner.setdefault(rows[number].owner, number))
        if before is not None:
            one, other = rows[before], rows[number]
            if shared(one, other) >= _SHARED * min(one.prompt, other.prompt):
                family_of[first(number)] = first(before)
    related: dict[int, list[int]] = defaultdict(list)
    for number in ordered:
        related[first(number)].append(number)
    yield from related.values()


def shared(one: TokenRow, other: TokenRow) -> int:
    """Number of tokens at the beginning that two rows share."""
    length = min(len(one.ids), len(other.ids))
    different = one.ids[:length] != other.ids[:length]
    return int(np.argmax(different)) if different.any() else length
