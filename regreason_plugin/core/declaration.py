"""What a classification task is: its labels, what is asked, and what a setting is called.

The paper's settings are declared in ``paper.yml``; any other task in a ``task.yml`` of its
own. A data folder's manifest carries the declaration it was built from, so training, scoring and
reports know the labels of whatever data they are given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Setting = tuple[str, str]
TEXT = "{text}"
Normalise = Literal["none", "characters"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(_Part):
    """Where documents come from.

    Attributes:
        title: For a reader.
        home: Where it is described.
        licence: Under which it comes.
    """

    title: str
    home: str = ""
    licence: str = "not stated"


class Axis(_Part):
    """What is rated.

    Attributes:
        title: For a reader.
        question: Asked after a conversation, word for word; empty where `Declaration.prompt`
            asks.
    """

    title: str
    question: str = ""


def _label(text: str) -> str:
    if not text or text != text.strip() or len(text.splitlines()) != 1:
        raise ValueError(f"label {text!r} is empty, has white space around it or has several lines")
    return text


Label = Annotated[str, AfterValidator(_label)]


def check_beginnings(written: Sequence[str]) -> None:
    """Refuse labels of which one is the beginning of another.

    Raises:
        ValueError: Two are so: whatever a model thinks, the longer one is the less likely.
    """
    for one in written:
        for other in written:
            if other != one and other.startswith(one):
                raise ValueError(
                    f"label {one!r} is the beginning of {other!r}, which could then never have "
                    "the higher score; let all labels end with a mark, such as label_end: '.'"
                )


class Declaration(_Part):
    """The labels and settings of a task.

    Attributes:
        labels: What the model writes, label 1 first; low to high where `ordinal`.
        label_end: Written after every label, as ``.``; needed where a label is the beginning of
            another, whose score could otherwise never be the higher one.
        ordinal: Whether their order means something.
        rated: Whether raters give the labels, as scores on a scale. Then every row has an
            explanation, and a label that no row has is no mistake. Otherwise a table has the
            labels, and explanations are optional.
        normalise: How scores of labels with several tokens are made comparable: ``none``, the
            sum of their tokens' log-likelihoods; or ``characters``, that sum over the label's
            length, as lm-eval's acc_norm.
        datasets: By name.
        axes: By name.
        task: The name of a setting's lm-eval task, with ``{dataset}`` and ``{axis}``.
        twin: The same of the task for models that explain first.
        group: lm-eval's group of all settings, after which those of a dataset or an axis are named.
            lm-eval finds the tasks of such a declaration by itself. None where their files are in
            a folder of the user's.
        prompt: The whole prompt with ``{text}`` in it, which is the only thing replaced; None
            for a conversation with the axis's question after it.
    """

    labels: tuple[Label, ...] = Field(min_length=2)
    label_end: str = ""
    ordinal: bool
    rated: bool = False
    normalise: Normalise = "none"
    datasets: dict[str, Dataset]
    axes: dict[str, Axis]
    task: str = "{dataset}"
    twin: str = "{dataset}-gen"
    # (A manifest that has none is the same as before there were groups.)
    group: str | None = Field(default=None, exclude_if=lambda group: group is None)
    prompt: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Declaration:
        if twice := {label for label in self.labels if self.labels.count(label) > 1}:
            raise ValueError(f"label {min(twice)!r} stands twice")
        check_beginnings(self.written)
        if self.prompt is not None:
            if self.prompt.count(TEXT) != 1:
                raise ValueError(f"the prompt has to hold {TEXT} once")
            if self.prompt != self.prompt.strip():
                raise ValueError("the prompt starts or ends with white space")
        return self

    @property
    def written(self) -> tuple[str, ...]:
        """The labels as the model reads and writes them."""
        return tuple(label + self.label_end for label in self.labels)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Every dataset with every axis, in the declared order."""
        return tuple((dataset, axis) for dataset in self.datasets for axis in self.axes)

    def task_name(self, dataset: str, axis: str) -> str:
        """The lm-eval task of a setting."""
        return self.task.replace("{dataset}", dataset).replace("{axis}", axis)

    def twin_name(self, dataset: str, axis: str) -> str:
        """The task of a setting for models that explain first."""
        return self.twin.replace("{dataset}", dataset).replace("{axis}", axis)

    def task_names(
        self, settings: Sequence[Setting] | None = None, *, generative: bool = False
    ) -> list[str]:
        """The tasks of some settings, or of all; the twins where the models explain first."""
        name = self.twin_name if generative else self.task_name
        return [name(*setting) for setting in (self.settings if settings is None else settings)]

    def tasks_argument(
        self, settings: Sequence[Setting] | None = None, *, generative: bool = False
    ) -> str:
        """Some tasks, or all, as ``--tasks`` takes them.

        Returns:
            A glob where these are all tasks and lm-eval finds them by itself, else their names.
        """
        names = self.task_names(settings, generative=generative)
        if self.group is not None and set(names) == set(self.task_names(generative=generative)):
            return re.sub("{.*}", "*", self.twin if generative else self.task)
        return ",".join(names)
