"""`Importer`, the description of how a dataset is read, and helpers that importers share."""

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
    """The way in which one or more datasets are read.

    Attributes:
        datasets: The names of the datasets.
        convert: Yields the conversations of a row, given the dataset's name. It yields or raises
            `LeftOut` for parts that cannot be used.
        forms: The required fields of a row, one set per format.
        also: Optional fields, which are read if a row has them.
        hub: The subsets on the Hub, by name; the first is the default.
        open_path: Opens local files that are not rows of JSON or parquet; for other paths it
            returns the file that has such rows.
        open_hub: Opens files on the Hub that are not rows of JSON or parquet.
        gather: Joins the rows of a file into the larger rows that `convert` needs.
        drawn_by: The key by which samples are drawn; None for the conversation's id.
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
        """All fields that are read, in any format."""
        return self.also.union(*self.forms)


def turn(role: str, content: str) -> Turn:
    """A message with cleaned text."""
    return Turn.model_validate({"role": role, "content": clean(content)})


def check_rated(turns: Sequence[Turn]) -> None:
    """Check that messages can be rated: they end with a response, and the user asks something.

    Raises:
        LeftOut: The last message is not a response with text, or no user message has text.
    """
    if not turns or turns[-1].role != "assistant" or not turns[-1].content:
        raise LeftOut("no response at the end")
    if not any(said.role == "user" and said.content for said in turns):
        raise LeftOut("no message from the user")


def conversation(
    dataset: str,
    turns: Sequence[Turn],
    *,
    group: str,
    context: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Conversation:
    """Make a conversation, with its id.

    Args:
        dataset: The name of the dataset.
        turns: The messages; the last one is to be rated.
        group: The group, whose conversations stay in the same split.
        context: The story that the conversation is about; None if there is none.
        meta: Numbers and short texts; values that are None or empty are dropped.

    Raises:
        LeftOut: The messages cannot be rated (`check_rated`).
    """
    check_rated(turns)
    cleaned = {
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
        meta={name: value for name, value in cleaned.items() if value != ""} or None,
    )


def text_of(row: Mapping[str, Any], field: str, place: str = "") -> str:
    """The text in a field.

    Args:
        row: The fields.
        field: The name of the field.
        place: The dotted path of ``row`` within a larger row, with a dot at its end.

    Raises:
        Malformed: The field is missing or is not a text.
    """
    return str(_field(row, field, place, str, "text"))


def list_of(row: Mapping[str, Any], field: str, place: str = "") -> list[Any]:
    """The list in a field. The arguments are those of `text_of`.

    Raises:
        Malformed: The field is missing or is not a list.
    """
    return list(_field(row, field, place, list, "list"))


def items_of(
    row: Mapping[str, Any], field: str, kind: type, fault: str, place: str = ""
) -> Iterator[tuple[str, Any]]:
    """The items of a list, each with its position as a dotted path.

    Args:
        row: The fields.
        field: The name of the field with the list.
        kind: The type that each item must have.
        fault: The message about an item of another type, such as ``is not a text``.
        place: The dotted path of ``row`` within a larger row, with a dot at its end.

    Raises:
        Malformed: The list is missing, or it or an item has another type.
    """
    for number, item in enumerate(list_of(row, field, place)):
        where = f"{place}{field}.{number}"
        if not isinstance(item, kind):
            raise Malformed(fault, where, item)
        yield where, item


def _field(row: Mapping[str, Any], field: str, place: str, kind: type, name: str) -> Any:
    value = row.get(field)
    if not isinstance(value, kind):
        if value is None:
            raise Malformed("is missing", place + field)
        raise Malformed(f"is not a {name}", place + field, value)
    return value


def digest(text: str) -> str:
    """A hash by which texts are ordered, since alphabetical order would favour some of them."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
