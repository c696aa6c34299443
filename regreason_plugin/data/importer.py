"""What the importers share: rows of a source, what is left out of them, conversations."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.records import Conversation, Turn
from regreason_plugin.data.groups import conversation_id
from regreason_plugin.data.text_cleaning import clean

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


class Row(NamedTuple):
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


class Rows(NamedTuple):
    """The rows of one source.

    Attributes:
        total: How many there are, where that is known.
        rows: Read as they are asked for.
        fields: What all of them have, where the source says so.
        classes: The names behind the numbers of a field, by field.
        integers: Fields that hold integers alone, where the source says so.
    """

    total: int | None
    rows: Iterator[Row]
    fields: frozenset[str] | None = None
    classes: Mapping[str, Sequence[str]] = {}
    integers: frozenset[str] = frozenset()


class Hub(NamedTuple):
    """A dataset on the Hub: its id, and a configuration or a folder of it."""

    repository: str
    config: str | None = None
    folder: str | None = None


class Importer(NamedTuple):
    """How a dataset is read.

    Attributes:
        datasets: The names of those that are read so.
        convert: The conversations of a row, given the dataset's name; what is not used
            of it is yielded or raised as `LeftOut`.
        forms: The fields that a row must have, one set for each format there is.
        also: Fields that are read where they are there.
        hub: The subsets on the Hub by name; the first is the default.
        open_path: Reads local files that are no rows of JSON or parquet, or names the
            file of such rows.
        open_hub: Reads such files from the Hub.
        gather: Makes rows of which each is for `convert` out of a file's smaller ones.
        drawn_by: What a sample is drawn by; the conversation's id where None.
    """

    datasets: tuple[str, ...]
    convert: Callable[[str, dict[str, Any]], Iterator[Conversation | LeftOut]]
    forms: tuple[frozenset[str], ...]
    hub: Mapping[str, Hub]
    also: frozenset[str] = frozenset()
    open_path: Callable[[Path], Rows | Path] | None = None
    open_hub: Callable[[Hub], Rows] | None = None
    gather: Callable[[Iterator[Row]], Iterator[Row]] | None = None
    drawn_by: Callable[[Conversation], str] | None = None

    @property
    def fields(self) -> frozenset[str]:
        """All that it reads, of any form."""
        return self.also.union(*self.forms)


def turn(role: str, content: str) -> Turn:
    """A message, its text cleaned."""
    return Turn.model_validate({"role": role, "content": clean(content)})


def check_rated(turns: Sequence[Turn]) -> None:
    """Refuse messages of which the last is no response, or is one to nothing.

    Raises:
        LeftOut: So it is.
    """
    if not turns or turns[-1].role != "assistant" or not turns[-1].content:
        raise LeftOut("no response at its end")
    if not any(said.role == "user" and said.content for said in turns):
        raise LeftOut("nobody asks anything")


def conversation(
    dataset: str,
    turns: Sequence[Turn],
    *,
    group: str,
    context: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Conversation:
    """A conversation with its id.

    Args:
        dataset: Its name.
        turns: The messages; the last one is to be rated.
        group: What must stay on one side of a split.
        context: A story it is about.
        meta: Numbers and short texts; what is None or empty is dropped.

    Raises:
        LeftOut: It has no response at its end, or nobody says anything before it.
    """
    check_rated(turns)
    kept = {
        name: clean(value) if isinstance(value, str) else value
        for name, value in (meta or {}).items()
        if isinstance(value, str | int)
    }
    return Conversation(
        id=conversation_id(dataset, turns, context),
        dataset=dataset,
        group=group,
        conversation=list(turns),
        context=context,
        meta={name: value for name, value in kept.items() if value != ""} or None,
    )


def text_of(row: Mapping[str, Any], field: str, place: str = "") -> str:
    """A field that has to be a text.

    Raises:
        Malformed: It is missing or something else.
    """
    value = row.get(field)
    if not isinstance(value, str):
        if value is None:
            raise Malformed("is missing", place + field)
        raise Malformed("is no text", place + field, value)
    return value


def list_of(row: Mapping[str, Any], field: str, place: str = "") -> list[Any]:
    """A field that has to be a list.

    Raises:
        Malformed: It is missing or something else.
    """
    value = row.get(field)
    if not isinstance(value, list):
        if value is None:
            raise Malformed("is missing", place + field)
        raise Malformed("is no list", place + field, value)
    return value


def digest(text: str) -> str:
    """A hash to order texts by, as no alphabet would favour any of them."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
