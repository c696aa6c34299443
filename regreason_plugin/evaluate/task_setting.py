"""The description of a scored task: dataset, axis, labels, and how label scores are compared.

lm-eval copies a task's metadata into its results. Our tasks describe themselves there, under the
key ``data``. Older results lack this description; all of them come from the eighteen settings,
which the task's name identifies.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regreason_plugin.core.declaration import Declaration, Label, Normalise
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.core.splits import Split

# Task name -> its index among the eighteen settings, and whether it is a generative twin.
_EIGHTEEN = {
    name(*setting): (place, generative)
    for name, generative in ((EIGHTEEN.task_name, False), (EIGHTEEN.twin_name, True))
    for place, setting in enumerate(EIGHTEEN.settings)
}
# Keys of ``data`` that describe the task; the other keys describe the data folder.
TASK_KEYS = (
    "setting",
    "labels",
    "label_end",
    "ordinal",
    "normalise",
    "title",
    "question",
    "axis_title",
    "prompt_sha256",
    "split",
    "misfit",
)


class TaskSetting(BaseModel):
    """The description of one task, read from ``metadata.data`` of its results.

    Attributes:
        setting: Names of the task's dataset and axis.
        title: The dataset's title, for display.
        axis_title: The axis's title, for display.
        labels: The texts of the K labels, label 1 first.
        label_end: The end marker that follows every label.
        ordinal: Whether the labels are an ordered scale.
        normalise: How scores of labels of unequal length are made comparable, as in
            `regreason_plugin.core.declaration.Declaration.normalise`.
        split: The split whose rows were scored; ``test`` for results that do not name one.
        generative: Whether the model writes an explanation before the label is scored.
        place: The task's index among the eighteen settings; None for any other task.
    """

    model_config = ConfigDict(frozen=True)

    setting: tuple[str, str]
    title: str = ""
    axis_title: str = ""
    labels: tuple[Label, ...] = Field(min_length=2)
    label_end: str = ""
    ordinal: bool
    normalise: Normalise = "none"
    split: Split = "test"
    generative: bool = False
    place: int | None

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.setting[0]

    @property
    def axis(self) -> str:
        """The axis's name."""
        return self.setting[1]


class LoggedSetting(TaskSetting):
    """The description of any other task of lm_eval.

    Its dataset is the group of tasks, if it was scored in one; its axis is the task. It has labels
    only if every document has the same answer choices.
    """

    labels: tuple[str, ...] = ()


def in_paper(settings: Iterable[TaskSetting]) -> int | None:
    """The number of settings in the paper, if all of these belong to it; else None."""
    return len(EIGHTEEN.settings) if all(one.place is not None for one in settings) else None


def declaration_of(data: dict[str, Any]) -> Declaration:
    """The declaration in a training record's ``data``; without one, the eighteen settings."""
    declared = data.get("declaration")
    return Declaration.model_validate(declared) if declared else EIGHTEEN


def is_regreason_task(task: str, data: dict[str, Any]) -> bool:
    """Whether a task in lm-eval's results belongs to RegReason.

    Args:
        task: The task's name.
        data: ``metadata.data`` of the task's results.
    """
    return task in _EIGHTEEN or "sha256" in data


def setting_of(task: str, data: dict[str, Any], file: Path) -> TaskSetting:
    """Read the description of one of our tasks.

    Args:
        task: The task's name.
        data: ``metadata.data`` of the task's results.
        file: The results file, for messages.

    Raises:
        UserError: The description is missing or invalid.
    """
    place, twin = _EIGHTEEN.get(task, (None, False))
    if "labels" not in data:
        if place is None:
            raise UserError(
                f"the results of task {task} do not list its labels; score the task again",
                path=file,
            )
        data = {**data, **_description_of(*EIGHTEEN.settings[place])}
    try:
        setting = TaskSetting.model_validate({**data, "place": place})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{first['msg'].removeprefix('Value error, ')}; score the task again",
            path=file,
            field=".".join(["configs", task, "metadata.data", *map(str, first["loc"])]),
        ) from None
    values = {
        "title": setting.title or setting.dataset,
        "axis_title": setting.axis_title or setting.axis,
        "generative": twin if place is not None else task == f"{setting.dataset}-gen",
    }
    return setting.model_copy(update=values)


def _description_of(dataset: str, axis: str) -> dict[str, Any]:
    """The description of one of the eighteen tasks, for results written before tasks had one.

    Such results may still be in use as a gate's baseline.
    """
    return {
        **EIGHTEEN.model_dump(include={"labels", "label_end", "ordinal", "normalise"}),
        "setting": (dataset, axis),
        "title": EIGHTEEN.datasets[dataset].title,
        "axis_title": EIGHTEEN.axes[axis].title,
    }
