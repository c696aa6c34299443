"""The rows of a file or of a dataset on the Hub, before they are converted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.splits import Split

_PLACE = re.compile(r"\.\d+")


class LeftOut(Exception):  # noqa: N818 - not each of them is an error
    """A row, or a part of a row, that is left out, with the reason.

    Args:
        reason: The reason under which it is counted.
        field: The position in the row, as a dotted path.
        broken: Whether the row violates the format of its dataset, so that ``--strict`` stops. If
            not, the row is valid but has no use here.
        error: The whole error message, if there already is one.
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
        """The reason under which it is counted: the same text for all rows with the same fault."""
        return self.reason

    @property
    def message(self) -> str:
        """The message about this row."""
        return self.reason


class Malformed(LeftOut):
    """A field that is missing or has the wrong content.

    Args:
        reason: The fault as a predicate, such as ``is missing``.
        field: The field, as a dotted path.
        found: The wrong content; None if the field is missing.
    """

    def __init__(self, reason: str, field: str, found: object = None) -> None:
        super().__init__(reason, field=field)
        self.found = found

    @property
    def counted(self) -> str:
        """The reason with the field, but without the position in a list."""
        return f"{_PLACE.sub('', self.field or '')} {self.reason}"

    @property
    def message(self) -> str:
        """The reason with the wrong content."""
        return self.reason if self.found is None else f"{self.reason} (got {self.found!r:.60})"


class SourceRow(NamedTuple):
    """A row and its position.

    Attributes:
        source: The file, or the dataset on the Hub.
        number: The number of its line or row, from 1.
        value: The row's fields, or the reason why it cannot be read.
        unit: The unit of ``number``: ``line``, ``row`` or ``entry``.
        split: The split of all rows of this source, if the source sets it.
    """

    source: str
    number: int
    value: dict[str, Any] | LeftOut
    unit: str = "line"
    split: Split | None = None

    def error(self, left_out: LeftOut) -> UserError:
        """An error message that names this row and the field."""
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
        total: The number of rows; None if it is not known.
        rows: The rows, which are read on demand.
        fields: The fields that all rows have; None if the source does not declare them.
        classes: The class names of each field that has numbers of classes.
        integers: The fields that the source declares as integers.
    """

    total: int | None
    rows: Iterator[SourceRow]
    fields: frozenset[str] | None = None
    classes: Mapping[str, Sequence[str]] = {}
    integers: frozenset[str] = frozenset()


class HubDataset(NamedTuple):
    """A dataset on the Hub: its id, and optionally its configuration or a folder in it."""

    repository: str
    config: str | None = None
    folder: str | None = None
