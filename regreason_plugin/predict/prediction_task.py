"""`Question`: the labels, prompt, label order and limits that a classifier was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.declaration import Declaration, Setting
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.model_use import CALIBRATION
from regreason_plugin.core.prompt import Order
from regreason_plugin.core.records import Conversation
from regreason_plugin.data.cells import text_of
from regreason_plugin.data_folder.folder import open_data_folder
from regreason_plugin.evaluate.calibration_file import (
    check_fitted_for,
    model_folder,
    read_calibration,
)
from regreason_plugin.predict.input_rows import ID

TEXT_COLUMN = "text"


@dataclass(frozen=True)
class Question:
    """One setting of a task, with everything that a prediction for it depends on.

    Attributes:
        declaration: The task's labels and prompt.
        dataset: The dataset of the setting.
        axis: The axis of the setting.
        order: Whether the model writes the label first or the explanation first.
        max_prompt: The longest prompt of training, in tokens or words; longer ones are cut to
            it. None for no limit.
        tokenizer: The tokenizer in whose tokens ``max_prompt`` is counted; None for words.
        text: The column that holds the text; None if each row is a conversation.
        identifier: The column that holds the row's id.
    """

    declaration: Declaration
    dataset: str
    axis: str
    order: Order = "label_first"
    max_prompt: int | None = None
    tokenizer: str | None = None
    text: str | None = None
    identifier: str = ID

    def conversation(self, value: Any) -> Conversation:
        """Convert a text, or the fields of a conversation, into a `Conversation`.

        Raises:
            ValueError: The value is neither; the message says why, as a predicate.
        """
        if isinstance(value, Conversation):
            return value
        fields: dict[str, Any] = {"id": "new", "dataset": self.dataset, "group": "new"}
        if isinstance(value, dict):
            if "conversation" not in value:
                raise ValueError("has no field 'conversation'")
            fields |= {name: value.get(name) for name in ("conversation", "context")}
        else:
            fields["conversation"] = [{"role": "assistant", "content": _text(value)}]
        return Conversation.model_validate(fields, context={"declaration": self.declaration})

    def temperature(self, arguments: Mapping[str, Any], data: str | Path | None) -> float:
        """The temperature that was fitted for this question and a model.

        Args:
            arguments: The model's arguments, from `read_model_args`.
            data: The data folder that the question was read from; None for a ``task.yml``.

        Raises:
            UserError: The model has no calibration, or one for another model, other data or other
                labels.
        """
        folder = model_folder(arguments)
        calibration = read_calibration(folder, arguments)
        check_fitted_for(
            calibration,
            folder / CALIBRATION,
            data_sha256=None if data is None else open_data_folder(data).sha256,
            setting=(self.dataset, self.axis),
            labels=self.declaration.written,
            normalise=self.declaration.normalise,
            order=self.order,
        )
        return calibration.temperature

    def facts(self) -> dict[str, Any]:
        """The parts that predictions depend on, in readable form, to compare two questions."""
        return {
            "labels": list(self.declaration.written),
            "normalise": self.declaration.normalise,
            "prompt": self.declaration.prompt or self.declaration.axes[self.axis].question,
            "dataset": self.dataset,
            "axis": self.axis,
            "order": self.order,
            "max_prompt": self.max_prompt,
            "unit": "tokens" if self.tokenizer else "words",
        }


def _text(value: Any) -> str:
    """Clean a text as the text column of a task's table is cleaned."""
    try:
        text = text_of(value)
    except ValueError as error:
        raise ValueError(f"the text {error}") from None
    if not text:
        raise ValueError("the text is empty")
    return text


def find_question(
    data: str | Path | None, task: str | Path | None, setting: Setting | None = None
) -> Question:
    """Read the question from a data folder or from a ``task.yml``.

    Raises:
        UserError: Both or neither are named, the file or folder cannot be read, or it does not
            hold the setting.
    """
    if data is not None and task is None:
        return _of_data(Path(data), setting)
    if task is not None and data is None and setting is None:
        return _of_task(Path(task))
    raise UserError("name either a data folder (and its setting) or a task.yml, not both")


def _of_data(path: Path, setting: Setting | None) -> Question:
    folder = open_data_folder(path)
    known = folder.settings()
    if setting is None:
        if len(known) != 1:
            raise UserError(
                f"holds {len(known)} settings; name one with --setting DATASET AXIS, such as "
                + " ".join(known[0]),
                path=path,
            )
        (setting,) = known
    if setting not in known:
        name, names = " ".join(setting), [" ".join(known_setting) for known_setting in known]
        raise UserError(f"has no setting {name!r}; {nearest(name, names)}", path=path)
    declared, manifest = folder.declaration, folder.manifest
    text = None if declared.prompt is None else TEXT_COLUMN
    return Question(
        declared, *setting, folder.order, manifest.limits.max_prompt, manifest.tokenizer, text
    )


def _of_task(path: Path) -> Question:
    from regreason_plugin.core.task_file import read_task

    task = read_task(path)
    ((dataset, axis),) = task.declaration.settings
    columns = task.columns
    return Question(task.declaration, dataset, axis, text=columns.text, identifier=columns.id or ID)
