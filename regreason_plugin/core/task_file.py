"""``task.yml``: the declaration of a user's own task and of the table that holds its rows.

`regreason task new` writes such a file and explains every key in it.
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
    check_no_prefixes,
)
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import validate
from regreason_plugin.core.look_alikes import check_twins
from regreason_plugin.core.prompt import neutralise
from regreason_plugin.core.splits import OnOverlap, Split
from regreason_plugin.core.yaml_file import read_yaml

AXIS = "label"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,79}")
# Placeholders and statements of Jinja and similar template languages.
_TEMPLATE = re.compile(r"\{[{%#]")
_FIELD = re.compile(r"\{[A-Za-z_][^{}\n]*\}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _nothing(value: Any) -> Any:
    """Treat a key without a value like a missing key."""
    return None if value == "" else value


def check_name(name: str) -> str:
    """Return a task's name unchanged.

    Raises:
        ValueError: A task cannot have this name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a valid task name: use small letters, digits and _, a letter first, "
            "at most 80 characters"
        )
    if name.startswith("regreason"):
        raise ValueError(
            f"{name!r}: names that start with regreason are reserved for the built-in tasks"
        )
    return name


def check_label(label: str) -> str:
    """Return a label unchanged.

    Raises:
        ValueError: The label could be read as a special token or a turn marker.
    """
    if neutralise(label)[1]:
        raise ValueError(
            f"label {label!r} could be read as a special token or a turn marker; use another "
            "word for it, in the table or under `values` in a task.yml"
        )
    return label


def check_prompt(prompt: str) -> str:
    """Return a prompt unchanged.

    Raises:
        ValueError: The prompt holds placeholders other than ``{text}`` or statements of a
            template language, does not contain ``{text}`` exactly once, starts or ends with white
            space, or has no line after the one with ``{text}``.
    """
    if part := _TEMPLATE.search(prompt):
        raise ValueError(
            f"holds {part[0]!r}, which a template language would run; a prompt runs nothing and "
            f"only {TEXT} is replaced in it, so leave it out"
        )
    for part in _FIELD.finditer(prompt):
        if part[0] != TEXT:
            raise ValueError(f"holds {part[0]!r}, but only {TEXT} is replaced; leave it out")
    if prompt.count(TEXT) != 1:
        raise ValueError(f"has to contain {TEXT} exactly once, where the text belongs")
    if prompt != prompt.strip():
        raise ValueError(
            "starts or ends with white space; end it with a line such as `Answer:`, and begin it "
            "with `|-` in place of `|`"
        )
    if TEXT in prompt.splitlines()[-1]:
        raise ValueError(f"ends with the line of {TEXT}; end it with a line such as `Answer:`")
    return prompt


Optional = Annotated[str | None, BeforeValidator(_nothing)]
Column = Annotated[str, Field(min_length=1)]
OptionalColumn = Annotated[Column | None, BeforeValidator(_nothing)]
TaskLabel = Annotated[Label, AfterValidator(check_label)]


class Data(_Part):
    """The table of a task: a local file or a dataset of the Hub.

    Attributes:
        path: Path of a file. In the file it is relative to the folder of ``task.yml``;
            `read_task` makes it relative to the working directory.
        hub: Name of a dataset on the Hub.
        config: Name of the dataset's config, if it has several.
        split: Name of the dataset's split.
        test: The rows of the test set, if they are not in the table: another file, with a path
            like that of `path`, or another split of the dataset on the Hub. The table then has
            the train rows.
        validation: The rows of the validation set, likewise; without it, validation rows are
            drawn from the train rows.
    """

    path: Annotated[Path | None, BeforeValidator(_nothing)] = None
    hub: Optional = None
    config: Optional = None
    split: Annotated[str, Field(min_length=1)] = "train"
    test: Optional = None
    validation: Optional = None

    @model_validator(mode="after")
    def _is_one(self) -> Data:
        if (self.path is None) == (self.hub is None):
            raise ValueError("needs either path, a file, or hub, the name of a dataset")
        if self.validation is not None and self.test is None:
            raise ValueError(
                "names validation but no test; name the test set too, because test rows are never "
                "drawn beside a validation set of your own"
            )
        return self

    def tables(self) -> list[tuple[Split | None, Data]]:
        """The tables to read one after the other, each with the split of all its rows, if set."""
        if self.test is None:
            return [(None, self)]
        parts: dict[Split, str | None] = {"validation": self.validation, "test": self.test}
        alone = self.model_copy(update={"test": None, "validation": None})
        tables: list[tuple[Split | None, Data]] = [("train", alone)]
        for split, name in parts.items():
            if name is not None:
                part = {"split": name} if self.path is None else {"path": Path(name)}
                tables.append((split, alone.model_copy(update=part)))
        return tables

    def files(self) -> list[Path]:
        """All local files of the task."""
        return [table.path for _, table in self.tables() if table.path is not None]

    def beside(self, folder: Path) -> Data:
        """The same tables, with paths that are relative to another folder joined to it."""
        if self.path is None:
            return self
        return self.model_copy(
            update={
                "path": folder / self.path,
                "test": self.test and str(folder / self.test),
                "validation": self.validation and str(folder / self.validation),
            }
        )

    def __str__(self) -> str:
        parts = (self.hub, self.config, self.split)
        return str(self.path) if self.path else "/".join(part for part in parts if part)


class Columns(_Part):
    """The names of the table's columns.

    Attributes:
        text: Column of the texts that the model classifies.
        label: Column of the labels.
        explanation: Column of the explanations for the labels.
        id: Column of stable, unique ids; without it, a hash of the text is the id.
        group: Column of the groups, each of which stays on one side of the split; without it,
            texts that differ only in case and punctuation form a group.
        split: Column that says in which split a row is: train, validation or test. Without it,
            and without files of their own, `regreason build` draws the splits.
    """

    text: Column
    label: Column
    explanation: OptionalColumn = None
    id: OptionalColumn = None
    group: OptionalColumn = None
    split: OptionalColumn = None

    @model_validator(mode="after")
    def _are_different(self) -> Columns:
        for one, other in (("label", "text"), ("explanation", "text"), ("explanation", "label")):
            if getattr(self, one) == getattr(self, other):
                raise ValueError(
                    f"the {one} column is the {other} column, {getattr(self, other)!r}"
                )
        return self

    def named(self) -> dict[str, str]:
        """The names of the columns that the table has, by their role, such as ``text``."""
        return {role: name for role, name in self.model_dump().items() if name is not None}


class SplitRule(_Part):
    """The sizes of the test and validation sets; all other documents are for training.

    Attributes:
        test: Share of the documents in the test set, between 0 and 1. Not with a test set of your
            own.
        validation: Share of the documents in the validation set, between 0 and 1; with a test set
            of your own, share of the other documents. Not with a validation set of your own.
        seed: Seed of the random split, which moves whole groups.
        on_overlap: With splits of your own, what happens if a text or a group is in two of them.
            ``refuse``: nothing is built. ``drop``: train rows that share a text or a group with
            validation or test are left out, and so are validation rows that share one with test.
    """

    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: int = 0
    on_overlap: OnOverlap = "refuse"

    @model_validator(mode="after")
    def _leaves_some(self) -> SplitRule:
        if self.test + self.validation >= 1:
            raise ValueError("test and validation leave nothing to train on")
        return self


class Task(_Part):
    r"""A user's own task, as its ``task.yml`` declares it.

    Attributes:
        name: Name of the lm-eval task, and of the dataset in every file.
        title: Title for people.
        labels: Labels that the model writes; from low to high if `ordinal`.
        label_end: Mark that follows every label (`declaration.Declaration`).
        ordinal: Whether the labels have an order, as a scale has.
        normalise: Scoring rule for labels of several tokens (`declaration.Declaration`).
        prompt: The whole prompt; the text replaces ``{text}``, and nothing else is replaced.
        data: The table.
        columns: Names of the table's columns.
        values: Labels by the values of the label column, for values that are not labels.
        look_alikes: Whether labels that look the same are refused or kept as different labels.
        explained_by: Raters that wrote the explanations, if the table had none of its own.
        split: Sizes of the test and validation sets.

    Example:
        >>> from regreason_plugin import Task
        >>> task = Task(
        ...     name="mood",
        ...     title="Mood of a message",
        ...     labels=("happy", "sad"),
        ...     prompt="{text}\nHappy or sad?\nAnswer:",
        ...     data={"path": "messages.csv"},
        ...     columns={"text": "message", "label": "mood"},
        ... )
        >>> task.split.test
        0.25
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
                raise ValueError(f"label {label!r} is listed twice")
        return labels

    @model_validator(mode="after")
    def _values_are_labels(self) -> Task:
        for value, label in self.values.items():
            if label not in self.labels:
                raise ValueError(
                    f"values: {value!r} stands for {label!r}, which is not one of the labels"
                )
        return self

    @model_validator(mode="after")
    def _is_split_once(self) -> Task:
        if self.data.test is not None and self.columns.split is not None:
            raise ValueError("data.test and columns.split both set the splits; keep one of them")
        if self.own_splits and "test" in self.split.model_fields_set:
            raise ValueError(
                "split.test is the size of a test set that is drawn, but the table has its own; "
                "remove it"
            )
        if self.data.validation is not None and "validation" in self.split.model_fields_set:
            raise ValueError(
                "split.validation is the size of a validation set that is drawn, but the task has "
                "its own, data.validation; remove one of the two"
            )
        if self.split.on_overlap != "refuse" and not self.own_splits:
            raise ValueError(
                "split.on_overlap is for splits of your own, but neither data.test nor "
                "columns.split sets them; remove it"
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
        check_no_prefixes([label + self.label_end for label in self.labels])
        return self

    @property
    def own_splits(self) -> bool:
        """Whether the user, and not the build, decides which rows are test rows."""
        return self.data.test is not None or self.columns.split is not None

    @property
    def declaration(self) -> Declaration:
        """The task's labels and its one setting, in the form that all other modules use."""
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

    Scalars are read as text, so that a label such as ``no`` or ``1.0`` needs no quotes.

    Returns:
        The task; the path of its data is relative to the working directory.

    Raises:
        UserError: The file is wrong; the message names file, line and field.

    Example:
        >>> from regreason_plugin import read_task
        >>> read_task("tickets/task.yml").labels
        ('billing', 'delivery', 'technical')
    """
    path = Path(path)
    file = read_yaml(path, as_text=True, folder_advice="name the task.yml in it")
    if not isinstance(file.value, dict):
        raise UserError("is not a task file; `regreason task new` writes one", path=path)
    task = validate(Task, file.value, path, file.line)
    return task.model_copy(update={"data": task.data.beside(path.parent)})
