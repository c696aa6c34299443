"""What the importers share: how a dataset is read, and the parts of its conversations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.core.records import Conversation, Turn
from regreason_plugin.data.groups import conversation_id
from regreason_plugin.data.source_rows import (
    HubDataset,
    LeftOut,
    Malformed,
    SourceRow,
    SourceRows,
)
from regreason_plugin.data.text_cleaning import clean


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
    hub: Mapping[str, HubDataset]
    also: frozenset[str] = frozenset()
    open_path: Callable[[Path], SourceRows | Path] | None = None
    open_hub: Callable[[HubDataset], SourceRows] | None = None
    gather: Callable[[Iterator[SourceRow]], Iterator[SourceRow]] | None = None
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
    return str(_field(row, field, place, str, "text"))


def list_of(row: Mapping[str, Any], field: str, place: str = "") -> list[Any]:
    """A field that has to be a list.

    Raises:
        Malformed: It is missing or something else.
    """
    return list(_field(row, field, place, list, "list"))


def _field(row: Mapping[str, Any], field: str, place: str, kind: type, name: str) -> Any:
    value = row.get(field)
    if not isinstance(value, kind):
        if value is None:
            raise Malformed("is missing", place + field)
        raise Malformed(f"is no {name}", place + field, value)
    return value


def digest(text: str) -> str:
    """A hash to order texts by, as no alphabet would favour any of them."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
