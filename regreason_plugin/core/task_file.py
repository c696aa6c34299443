"""``task.yml``: a task of one's own, where its table is and how it is read.

`regreason task new` writes one with every key explained.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from regreason_plugin.core.declaration import (
    TEXT,
    Axis,
    Dataset,
    Declaration,
    Label,
    check_beginnings,
)
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import validate
from regreason_plugin.core.look_alikes import check_twins
from regreason_plugin.core.prompt import neutralise
from regreason_plugin.core.yaml_file import read_yaml

AXIS = "label"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,79}")
# Of Jinja and its kin.
_TEMPLATE = re.compile(r"\{[{%#]")
_FIELD = re.compile(r"\{[A-Za-z_][^{}\n]*\}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _nothing(value: Any) -> Any:
    """A key with nothing after it is one that was left out."""
    return None if value == "" else value


def check_name(name: str) -> str:
    """A name that a task may have.

    Raises:
        ValueError: It may not.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a task: small letters, digits and _, a letter first, at "
            "most 80 of them"
        )
    if name.startswith("regreason"):
        raise ValueError(f"{name!r}: names that start with regreason are the built-in tasks'")
    return name


def check_label(label: str) -> str:
    """A label that means the same to every tokenizer.

    Raises:
        ValueError: It could be read as a special token or a turn marker.
    """
    if neutralise(label)[1]:
        raise ValueError(
            f"label {label!r} could be read as a special token or a turn marker; write another "
            "word for it, in the table or under `values` in a task.yml"
        )
    return label


def check_prompt(prompt: str) -> str:
    """A prompt of which nothing is run and only ``{text}`` is replaced.

    Raises:
        ValueError: It looks as if more was expected, or does not end on a cue.
    """
    if found := _TEMPLATE.search(prompt):
        raise ValueError(
            f"holds {found[0]!r}, which a template language would run; nothing is run here and "
            f"only {TEXT} is replaced, so write it without"
        )
    for found in _FIELD.finditer(prompt):
        if found[0] != TEXT:
            raise ValueError(f"holds {found[0]!r}, but only {TEXT} is replaced; write it without")
    if prompt.count(TEXT) != 1:
        raise ValueError(f"has to hold {TEXT} once, in the place of the text")
    if prompt != prompt.strip():
        raise ValueError(
            "starts or ends with white space; end it on a line such as `Answer:`, and begin it "
            "with `|-` in place of `|`"
        )
    if TEXT in prompt.splitlines()[-1]:
        raise ValueError(f"ends on the line of {TEXT}; end it on a line such as `Answer:`")
    return prompt


Optional = Annotated[str | None, BeforeValidator(_nothing)]
Column = Annotated[str, Field(min_length=1)]
OptionalColumn = Annotated[Column | None, BeforeValidator(_nothing)]
TaskLabel = Annotated[Label, AfterValidator(check_label)]


class Data(_Part):
    """Where the table is: a local file or a dataset of the Hub.

    Attributes:
        path: A file; as seen from the ``task.yml``, and from where one stands once read.
        hub: The id of a dataset.
        config: Of that dataset, if it has several.
        split: Of that dataset.
    """

    path: Annotated[Path | None, BeforeValidator(_nothing)] = None
    hub: Optional = None
    config: Optional = None
    split: Annotated[str, Field(min_length=1)] = "train"

    @model_validator(mode="after")
    def _is_one(self) -> Data:
        if (self.path is None) == (self.hub is None):
            raise ValueError("needs either path, a file, or hub, the id of a dataset")
        return self

    def __str__(self) -> str:
        parts = (self.hub, self.config, self.split)
        return str(self.path) if self.path else "/".join(part for part in parts if part)


class Columns(_Part):
    """What the columns of the table are called.

    Attributes:
        text: What is classified.
        label: Its class.
        explanation: Why it is that class.
        id: Stable and unique; a hash of the text without one.
        group: What must stay on one side of the split; texts that differ in case and marks
            alone without one.
    """

    text: Column
    label: Column
    explanation: OptionalColumn = None
    id: OptionalColumn = None
    group: OptionalColumn = None

    @model_validator(mode="after")
    def _are_different(self) -> Columns:
        for one, other in (("label", "text"), ("explanation", "text"), ("explanation", "label")):
            if getattr(self, one) == getattr(self, other):
                raise ValueError(
                    f"the {one} column is the {other} column, {getattr(self, other)!r}"
                )
        return self

    def named(self) -> dict[str, str]:
        """The columns that are read, by what they are."""
        return {what: name for what, name in self.model_dump().items() if name is not None}


class SplitRule(_Part):
    """How many of the documents go where; whole groups, the rest is for training.

    Attributes:
        test: Share of the documents.
        validation: Share of the documents.
        seed: Another seed gives another split.
    """

    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_some(self) -> SplitRule:
        if self.test + self.validation >= 1:
            raise ValueError("test and validation leave nothing to train on")
        return self


class Task(_Part):
    """A task of one's own.

    Attributes:
        name: Of the lm-eval task, and of the dataset in every file.
        title: For a reader.
        labels: What the model writes; low to high where `ordinal`.
        label_end: Written after every label (`declaration.Declaration`).
        ordinal: Whether their order means something.
        normalise: How labels of several tokens are compared (`declaration.Declaration`).
        prompt: With ``{text}`` where the text goes, the one thing that is replaced.
        data: Where the table is.
        columns: What its columns are called.
        values: Which label a value of the label column stands for, where it is not the label
            itself.
        look_alikes: Whether labels that look the same are refused or kept apart.
        explained_by: Who wrote explanations that the table did not have from its own makers.
        split: How many documents are for what.
    """

    name: Annotated[str, AfterValidator(check_name)]
    title: Annotated[str, Field(min_length=1)]
    labels: tuple[TaskLabel, ...] = Field(min_length=2)
    label_end: str = ""
    ordinal: bool = False
    normalise: Literal["none", "characters"] = "none"
    prompt: Annotated[str, AfterValidator(check_prompt)]
    data: Data
    columns: Columns
    values: Annotated[dict[str, str], BeforeValidator(lambda given: given or {})] = Field(
        default_factory=dict
    )
    look_alikes: Literal["refuse", "keep"] = "refuse"
    explained_by: Annotated[tuple[str, ...], BeforeValidator(lambda given: given or ())] = ()
    split: SplitRule = SplitRule()

    @field_validator("labels")
    @classmethod
    def _are_different(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"label {label!r} stands twice")
        return labels

    @model_validator(mode="after")
    def _values_are_labels(self) -> Task:
        for value, label in self.values.items():
            if label not in self.labels:
                raise ValueError(
                    f"values: {value!r} stands for {label!r}, which is none of the labels"
                )
        return self

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Task:
        if self.look_alikes == "refuse":
            check_twins(
                self.labels,
                "take one out of `labels` and say under `values` which label it stands for, or "
                "write look_alikes: keep",
            )
        check_beginnings([label + self.label_end for label in self.labels])
        return self

    @property
    def declaration(self) -> Declaration:
        """The labels and the one setting, as everything downstream knows a task."""
        return Declaration(
            labels=self.labels,
            label_end=self.label_end,
            ordinal=self.ordinal,
            normalise=self.normalise,
            datasets={self.name: Dataset(title=self.title)},
            axes={AXIS: Axis(title=AXIS)},
            prompt=self.prompt,
        )


def read_task(path: str | Path) -> Task:
    """Read and check a ``task.yml``.

    Scalars are taken as they are written, so that a label ``no`` or ``1.0`` needs no quotes.

    Returns:
        The task; the path of its data is as seen from where one stands.

    Raises:
        UserError: With file, line and field.
    """
    path = Path(path)
    file = read_yaml(path, as_text=True, folder_advice="name the task.yml in it")
    if not isinstance(file.value, dict):
        raise UserError("is no task; `regreason task new` writes one", path=path)
    task = validate(Task, file.value, path, file.line)
    if task.data.path is None:
        return task
    data = task.data.model_copy(update={"path": path.parent / task.data.path})
    return task.model_copy(update={"data": data})
