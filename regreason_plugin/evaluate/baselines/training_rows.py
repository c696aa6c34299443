"""The training rows of the baselines: those of the ``label_only`` arm, never test rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from regreason_plugin.core.declaration import Setting
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.data_folder.folder import MANIFEST, DataFolder

TRAIN = "train/label_only.jsonl"
VALIDATION = "validation/label_only.jsonl"


@dataclass
class Examples:
    """Rows of one setting.

    Attributes:
        prompts: The prompts, the same as in the arms.
        labels: The labels' numbers, from 1.
    """

    prompts: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Rows:
    """Train and validation rows by setting, in the declared order."""

    train: dict[Setting, Examples]
    validation: dict[Setting, Examples]


def tasks_of(folder: DataFolder, names: Sequence[str] | None) -> dict[str, Setting]:
    """The settings of some tasks, by task name, in the declared order.

    Args:
        folder: The data folder.
        names: Names of tasks; None for all tasks of the data.

    Raises:
        UserError: The data has no task of such a name.
    """
    declared = folder.declaration
    settings = folder.settings()
    known = dict(zip(declared.task_names(settings), settings, strict=True))
    for name in names or ():
        if name not in known:
            raise UserError(f"the data has no task {name!r}; {nearest(name, list(known))}")
    return {name: setting for name, setting in known.items() if names is None or name in names}


def read_rows(folder: DataFolder, settings: Sequence[Setting]) -> Rows:
    """Read the train and validation rows of some settings.

    Raises:
        UserError: The folder has no ``label_only`` files, a setting has no rows in one of them,
            or all train rows of a setting have the same label.
    """
    train, validation = (_read(folder, name, settings) for name in (TRAIN, VALIDATION))
    for setting, examples in train.items():
        if len(labels := set(examples.labels)) < 2:
            (label,) = labels
            raise UserError(
                f"all rows of {' '.join(setting)} have the label "
                f"{folder.declaration.labels[label - 1]!r}, but a classifier needs at least two "
                "labels; name the other tasks with --tasks",
                path=folder.path / TRAIN,
            )
    return Rows(train, validation)


def _read(folder: DataFolder, name: str, settings: Sequence[Setting]) -> dict[Setting, Examples]:
    if name not in folder.manifest.files:
        raise UserError(
            f"lists no {name}, whose rows the baselines need; build the data with label_only "
            "among its --arms",
            path=folder.path / MANIFEST,
        )
    by_setting: dict[Setting, Examples] = defaultdict(Examples)
    for row in folder.rows(name):
        examples = by_setting[row.dataset, row.axis]
        examples.prompts.append(row.messages[0].content)
        examples.labels.append(row.label)
    for setting in settings:
        if setting not in by_setting:
            raise UserError(
                f"has no rows of {' '.join(setting)}; name the other tasks with --tasks",
                path=folder.path / name,
            )
    return {setting: by_setting[setting] for setting in settings}
