"""What a classifier is asked: labels, prompt, order and limits, as the data it learnt from say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.declaration import Declaration, Setting
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.prompt import Order
from regreason_plugin.core.records import Conversation
from regreason_plugin.data.cells import text_of
from regreason_plugin.data_folder.folder import open_data_folder
from regreason_plugin.predict.input_rows import ID

TEXT_COLUMN = "text"


@dataclass(frozen=True)
class Question:
    """One setting of a task.

    Attributes:
        declaration: Its labels and prompt.
        dataset: The setting's.
        axis: Likewise.
        order: Whether the label is asked for at once or after an explanation.
        max_prompt: Where prompts are cut, as they were for training.
        tokenizer: Of its tokens; None for words.
        text: The column where rows have the text; None for rows that are conversations.
        identifier: The column of their id.
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
        """A text, or a conversation's fields, as what a prompt is made of.

        Raises:
            ValueError: It is none; the message says why, as a predicate.
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

    def facts(self) -> dict[str, Any]:
        """All of it that a prediction depends on, for a reader and for comparing."""
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
    """A text as a task's table has it."""
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
    """The question of a data folder or of a task's file.

    Raises:
        UserError: It has to be one of the two, or something of it is not there.
    """
    if data is not None and task is None:
        return _of_data(Path(data), setting)
    if task is not None and data is None and setting is None:
        return _of_task(Path(task))
    raise UserError("name a data folder (and its setting) or a task.yml, one of the two")


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
        given, names = " ".join(setting), [" ".join(one) for one in known]
        raise UserError(f"has no setting {given!r}; {nearest(given, names)}", path=path)
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
