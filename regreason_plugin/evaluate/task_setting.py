"""What a scored task asks: its dataset and axis, its labels, and how their scores compare.

lm-eval writes a task's metadata into its results, and in ``data`` our tasks say there what was
asked of which data. Results that are older do not; they are of the eighteen settings, which are
known by the task's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regreason_plugin.core.declaration import Declaration, Label, Normalise
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.data_folder.split import Split

# By the name of the task: its place among them, and whether it is a generative twin.
_EIGHTEEN = {
    name(*setting): (place, generative)
    for name, generative in ((EIGHTEEN.task_name, False), (EIGHTEEN.twin_name, True))
    for place, setting in enumerate(EIGHTEEN.settings)
}
# Keys of ``data`` that speak of the task; the others are of the data folder.
OF_TASK = (
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
    """What one task asks, as ``data`` say it.

    Attributes:
        setting: Names of its dataset and its axis.
        title: Of the dataset, for a reader.
        axis_title: Of the axis, likewise.
        labels: The K labels' texts, label 1 first.
        label_end: Written after each of them.
        ordinal: Whether their order means something.
        normalise: How scores of labels of unequal length are made comparable, as
            `regreason_plugin.core.declaration.Declaration.normalise`.
        split: Which rows of the data were scored; results that do not say it are of test rows.
        generative: Whether the models explain first.
        place: Its place among the eighteen settings; None of any other task.
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
        """The name of its dataset."""
        return self.setting[0]

    @property
    def axis(self) -> str:
        """The name of its axis."""
        return self.setting[1]


def in_paper(settings: Iterable[TaskSetting]) -> int | None:
    """How many settings the paper has, where these are some of them; else None."""
    return len(EIGHTEEN.settings) if all(one.place is not None for one in settings) else None


def declaration_of(data: dict[str, Any]) -> Declaration:
    """What a training record's ``data`` declare; where they do not, the eighteen settings."""
    declared = data.get("declaration")
    return Declaration.model_validate(declared) if declared else EIGHTEEN


def is_ours(task: str, data: dict[str, Any]) -> bool:
    """Whether a task in lm-eval's results is one of ours."""
    return task in _EIGHTEEN or "sha256" in data


def setting_of(task: str, data: dict[str, Any], file: Path) -> TaskSetting:
    """What a task of ours asks.

    Args:
        task: Its name.
        data: ``metadata.data`` of its results.
        file: The results, for messages.

    Raises:
        UserError: The results do not say it.
    """
    place, twin = _EIGHTEEN.get(task, (None, False))
    if "labels" not in data:
        if place is None:
            raise UserError(
                f"task {task} does not say what its labels are; score it again", path=file
            )
        data = {**data, **_before_results_said_it(*EIGHTEEN.settings[place])}
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


def _before_results_said_it(dataset: str, axis: str) -> dict[str, Any]:
    """What ``data`` of one of the eighteen say today; results kept as a gate's baseline do not."""
    return {
        **EIGHTEEN.model_dump(include={"labels", "label_end", "ordinal", "normalise"}),
        "setting": (dataset, axis),
        "title": EIGHTEEN.datasets[dataset].title,
        "axis_title": EIGHTEEN.axes[axis].title,
    }
