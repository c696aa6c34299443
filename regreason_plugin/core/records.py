"""The records that travel between stations: conversation, rating, row."""

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
    """The task that the reader of a file names; None for a record that code makes."""
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
    """What is rated: a conversation whose last message is the response.

    Attributes:
        id: Stable and unique over all datasets.
        dataset: One that the task declares.
        group: What must stay on one side of a split.
        conversation: The turns; the last one is the assistant's and is rated.
        context: A story or a product the conversation is about.
        meta: Anything worth keeping; never read by a model.
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
            raise ValueError("has no messages; the last message is what is rated")
        if turns[-1].role != "assistant":
            raise ValueError(
                f"ends on a {turns[-1].role!r} message; the last one is what is rated "
                "and must be the assistant's"
            )
        if not turns[-1].content.strip():
            raise ValueError("the last message, which is what is rated, is empty")
        return turns


class RaterScore(_Record):
    """What one rater said with one prompt: a score with its reason, or an error."""

    rater: str
    prompt: str
    scale: Annotated[int, Field(ge=2)]
    score: float | None = None
    explanation: str | None = None
    error: str | None = None


class Merged(_Record):
    """One explanation made of all raters' by one of them, or why there is none."""

    rater: str
    explanation: str | None = None
    error: str | None = None


class Rated(Conversation):
    """A conversation as the raters left it on one axis, with no label yet.

    Attributes:
        ratings: One entry a rater and prompt.
        merged: Their explanations as one, where they were merged.
    """

    axis: AxisName
    ratings: list[RaterScore] = Field(default_factory=list)
    merged: Merged | None = None


class Rating(Rated):
    """A conversation with its label on one axis and where the label comes from."""

    label: Label
    score: Score
    explanation: Annotated[str, AfterValidator(_explains)]


class Row(_Record):
    """One line of a data folder: a rendered prompt with its label and target.

    ``messages`` holds the prompt as a user turn and, except in the test file,
    the target as the assistant's.
    """

    id: Text
    dataset: DatasetName
    group: Text
    axis: AxisName
    label: Label
    score: Score
    explanation: str
    messages: list[Turn]
