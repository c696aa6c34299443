"""The declaration of a classification task: its labels, its prompt and its settings' names.

``paper.yml`` declares the paper's settings; any other task has its own ``task.yml``. The manifest
of a data folder holds the declaration from which the folder was built, so training, scoring and
reports know the labels of the data that they read.
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
    """A source of documents.

    Attributes:
        title: Title for people.
        home: Address of the page that describes the dataset.
        licence: Licence of the dataset.
    """

    title: str
    home: str = ""
    licence: str = "not stated"


class Axis(_Part):
    """A property that the labels rate, such as naturalness.

    Attributes:
        title: Title for people.
        question: Question that follows the conversation in the prompt, word for word; empty if
            `Declaration.prompt` holds the question.
    """

    title: str
    question: str = ""


def _label(text: str) -> str:
    if not text or text != text.strip() or len(text.splitlines()) != 1:
        raise ValueError(f"label {text!r} is empty, has white space around it or has several lines")
    return text


Label = Annotated[str, AfterValidator(_label)]


def check_no_prefixes(written: Sequence[str]) -> None:
    """Check that no label is a prefix of another.

    Raises:
        ValueError: A label is a prefix of another. A model can never give the longer of the two
            the higher probability.
    """
    for one in written:
        for other in written:
            if other != one and other.startswith(one):
                raise ValueError(
                    f"label {one!r} is a prefix of {other!r}, which could then never have "
                    "the higher score; end every label with a mark, such as label_end: '.'"
                )


class Declaration(_Part):
    """The labels and settings of a task; a setting is a dataset with an axis.

    Attributes:
        labels: Labels that the model writes, label 1 first; from low to high if `ordinal`.
        label_end: Mark that follows every label, such as ``.``. It is needed if one label is a
            prefix of another; otherwise the longer one could never score higher.
        ordinal: Whether the labels have an order, as a scale has.
        rated: Whether the labels come from raters, as scores on a scale. If so, every row has an
            explanation, and a label may occur in no row. If not, the labels come from a table,
            explanations are optional, and every label has to occur.
        normalise: Scoring rule for labels of several tokens: ``none`` takes the sum of the
            tokens' log-likelihoods; ``characters`` divides that sum by the label's length in
            characters, as lm-eval's acc_norm does.
        datasets: Datasets by name.
        axes: Axes by name.
        task: Name of a setting's lm-eval task, with the placeholders ``{dataset}`` and ``{axis}``.
        twin: Name of a setting's task for models that explain first, with the same placeholders.
        group: Name of lm-eval's group of all settings; the groups of a dataset or an axis derive
            their names from it. lm-eval finds the tasks of a declaration with a group without
            ``--include_path``. None if the task files are in a folder of the user's.
        prompt: The whole prompt, in which ``{text}`` alone is replaced; None for a prompt made of
            the conversation and the axis's question.
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
    # A missing group is left out, so that manifests written before groups existed stay the same.
    group: str | None = Field(default=None, exclude_if=lambda group: group is None)
    prompt: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Declaration:
        if twice := {label for label in self.labels if self.labels.count(label) > 1}:
            raise ValueError(f"label {min(twice)!r} is listed twice")
        check_no_prefixes(self.written)
        if self.prompt is not None:
            if self.prompt.count(TEXT) != 1:
                raise ValueError(f"the prompt has to contain {TEXT} exactly once")
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
        """The name of a setting's lm-eval task."""
        return self.task.replace("{dataset}", dataset).replace("{axis}", axis)

    def twin_name(self, dataset: str, axis: str) -> str:
        """The name of a setting's task for models that explain first."""
        return self.twin.replace("{dataset}", dataset).replace("{axis}", axis)

    def task_names(
        self, settings: Sequence[Setting] | None = None, *, generative: bool = False
    ) -> list[str]:
        """The names of the tasks of some settings, in their order.

        Args:
            settings: Settings to name; None for all.
            generative: Whether to name the tasks for models that explain first.
        """
        name = self.twin_name if generative else self.task_name
        return [name(*setting) for setting in (self.settings if settings is None else settings)]

    def tasks_argument(
        self, settings: Sequence[Setting] | None = None, *, generative: bool = False
    ) -> str:
        """The tasks of some settings as the value of lm-eval's ``--tasks``.

        Args:
            settings: Settings to name; None for all.
            generative: Whether to name the tasks for models that explain first.

        Returns:
            A glob if these are all tasks and the declaration has a `group`; otherwise the names,
            joined by commas.
        """
        names = self.task_names(settings, generative=generative)
        if self.group is not None and set(names) == set(self.task_names(generative=generative)):
            return re.sub("{.*}", "*", self.twin if generative else self.task)
        return ",".join(names)
