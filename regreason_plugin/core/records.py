"""The records in our JSONL files: conversations, ratings and rows of a data folder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import nearest

Number = TypeVar("Number", int, float)


def _declared(info: ValidationInfo) -> Declaration | None:
    """The task in the validation context; None for a record that code creates without a context.

    Raises:
        TypeError: A file is read without naming the task of its records.
    """
    if info.context is None:
        return None
    declared = info.context["declaration"]
    if not isinstance(declared, Declaration):
        raise TypeError("the reader of a file has to name the task of its records")
    return declared


def _dataset(name: str, info: ValidationInfo) -> str:
    declared = _declared(info)
    return _known("dataset", name, declared.datasets) if declared else name


def _axis(name: str, info: ValidationInfo) -> str:
    declared = _declared(info)
    return _known("axis", name, declared.axes) if declared else name


def _in_scale(number: Number, info: ValidationInfo) -> Number:
    declared = _declared(info)
    if declared and number > (count := len(declared.labels)):
        raise ValueError(f"Input should be less than or equal to {count}")
    return number


def _explains(text: str, info: ValidationInfo) -> str:
    declared = _declared(info)
    return _has_text(text) if declared and declared.rated else text


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}; {nearest(name, list(known))}")
    return name


def _has_text(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


DatasetName = Annotated[str, AfterValidator(_dataset)]
AxisName = Annotated[str, AfterValidator(_axis)]
Text = Annotated[str, AfterValidator(_has_text)]
Label = Annotated[int, Field(strict=True, ge=1), AfterValidator(_in_scale)]
Score = Annotated[float, Field(ge=1, allow_inf_nan=False), AfterValidator(_in_scale)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(_Record):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(_Record):
    """A conversation whose last message is the response that raters rate.

    Attributes:
        id: Stable id, unique over all datasets.
        dataset: Name of a dataset that the task declares.
        group: Group of documents that must all be on the same side of a split.
        conversation: The turns; the last one is the assistant's response.
        context: The story or the product that the conversation is about.
        meta: Any further data; no model reads it.
    """

    id: Text
    dataset: DatasetName
    group: Text
    conversation: list[Turn]
    context: str | None = None
    meta: dict[str, Any] | None = None

    @field_validator("conversation")
    @classmethod
    def _ends_on_response(cls, turns: list[Turn]) -> list[Turn]:
        if not turns:
            raise ValueError("has no messages; the last message is the one that is rated")
        if turns[-1].role != "assistant":
            raise ValueError(
                f"ends on a {turns[-1].role!r} message; the last message is the one that is rated, "
                "so it must be the assistant's"
            )
        if not turns[-1].content.strip():
            raise ValueError("the last message, which is the one that is rated, is empty")
        return turns


class RaterScore(_Record):
    """The answer of one rater to one prompt: a score with an explanation, or an error."""

    rater: str
    prompt: str
    scale: Annotated[int, Field(ge=2)]
    score: float | None = None
    explanation: str | None = None
    error: str | None = None


class Merged(_Record):
    """One explanation that a rater made from those of all raters, or the error that it met."""

    rater: str
    explanation: str | None = None
    error: str | None = None


class Rated(Conversation):
    """A conversation with the raters' scores on one axis, before a label is made of them.

    Attributes:
        axis: Name of an axis that the task declares.
        ratings: One entry for each rater and prompt.
        merged: The raters' explanations merged into one; None if they were not merged.
    """

    axis: AxisName
    ratings: list[RaterScore] = Field(default_factory=list)
    merged: Merged | None = None


class Rating(Rated):
    """A conversation with its label on one axis and the raters' scores behind the label."""

    label: Label
    score: Score
    explanation: Annotated[str, AfterValidator(_explains)]


class Row(_Record):
    """One line of a data folder: a rendered prompt with its label and target.

    ``messages`` holds the prompt as the user's turn and, except in the test file, the target as
    the assistant's turn.
    """

    id: Text
    dataset: DatasetName
    group: Text
    axis: AxisName
    label: Label
    score: Score
    explanation: str
    messages: list[Turn]
