"""Rows of a file or of a dataset of the Hub, before anything is made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from regreason_plugin.core.errors import UserError

_PLACE = re.compile(r"\.\d+")


class LeftOut(Exception):  # noqa: N818 - not each of them is an error
    """Something of a row that is left out, and why.

    Args:
        reason: What it is counted under.
        field: Where in the row, as a dotted path.
        broken: The row is not what its dataset promises, so that ``--strict`` stops;
            else it is sound and only of no use here.
        error: The whole sentence, where there is one already.
    """

    def __init__(
        self,
        reason: str,
        *,
        field: str | None = None,
        broken: bool = True,
        error: UserError | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.broken = broken
        self.error = error

    @property
    def counted(self) -> str:
        """The same text for all rows with the same fault."""
        return self.reason

    @property
    def message(self) -> str:
        """What is said of this row."""
        return self.reason


class Malformed(LeftOut):
    """A field is missing, or not what it should be.

    Args:
        reason: A predicate, such as ``is missing``.
        field: Of which field, as a dotted path.
        found: What stands there instead.
    """

    def __init__(self, reason: str, field: str, found: object = None) -> None:
        super().__init__(reason, field=field)
        self.found = found

    @property
    def counted(self) -> str:
        """With the field, but not with the place in a list."""
        return f"{_PLACE.sub('', self.field or '')} {self.reason}"

    @property
    def message(self) -> str:
        """With what was found."""
        return self.reason if self.found is None else f"{self.reason} (got {self.found!r:.60})"


class SourceRow(NamedTuple):
    """One row and where it stands.

    Attributes:
        source: The file, or the dataset on the Hub.
        number: Of its line or row, from 1.
        value: Its fields, or why it has none.
        unit: What is counted: a ``line``, a ``row``.
    """

    source: str
    number: int
    value: dict[str, Any] | LeftOut
    unit: str = "line"

    def error(self, left_out: LeftOut) -> UserError:
        """The sentence that names this row and the field."""
        if left_out.error is not None:
            return left_out.error
        if self.unit == "line":
            return UserError(
                left_out.message, path=self.source, line=self.number, field=left_out.field
            )
        place = f"{self.source}, {self.unit} {self.number}"
        return UserError(left_out.message, path=place, field=left_out.field)


class SourceRows(NamedTuple):
    """The rows of one source.

    Attributes:
        total: How many there are, where that is known.
        rows: Read as they are asked for.
        fields: What all of them have, where the source says so.
        classes: The names behind the numbers of a field, by field.
        integers: Fields that hold integers alone, where the source says so.
    """

    total: int | None
    rows: Iterator[SourceRow]
    fields: frozenset[str] | None = None
    classes: Mapping[str, Sequence[str]] = {}
    integers: frozenset[str] = frozenset()


class HubDataset(NamedTuple):
    """A dataset on the Hub: its id, and a configuration or a folder of it."""

    repository: str
    config: str | None = None
    folder: str | None = None
