"""The eighteen settings: what importers, raters and the mini benchmark are made for.

They are declared in ``paper.yml``. Whatever works for any task reads its data folder's
declaration instead.
"""

from __future__ import annotations

from importlib.resources import files

import yaml

from regreason_plugin.core.declaration import Dataset, Declaration

EIGHTEEN = Declaration.model_validate(
    yaml.safe_load(files("regreason_plugin.core").joinpath("paper.yml").read_text(encoding="utf-8"))
)
LABELS: tuple[str, ...] = EIGHTEEN.labels
DATASETS: dict[str, str] = {name: dataset.title for name, dataset in EIGHTEEN.datasets.items()}
SOURCES: dict[str, Dataset] = EIGHTEEN.datasets
AXES: dict[str, str] = {name: axis.title for name, axis in EIGHTEEN.axes.items()}
QUESTIONS: dict[str, str] = {name: axis.question for name, axis in EIGHTEEN.axes.items()}
SETTINGS: tuple[tuple[str, str], ...] = EIGHTEEN.settings

# Its responses have scores of people, so that raters can be held against them. It is rated like the
# others and is no setting: nothing is trained or tested on it under the eighteen's names.
TOPICAL_USR = "topical_usr"
RATEABLE = EIGHTEEN.model_copy(
    update={
        "datasets": {
            **EIGHTEEN.datasets,
            TOPICAL_USR: Dataset(
                title="Topical-Chat, scored by people (USR)",
                home="https://github.com/maszhongming/UniEval",
                licence="MIT",
            ),
        }
    }
)


def task_name(dataset: str, axis: str) -> str:
    """The lm-eval task of a setting, such as ``regreason_coqa_naturalness``."""
    return EIGHTEEN.task_name(dataset, axis)


def generative_task_name(dataset: str, axis: str) -> str:
    """The task of a setting for models that explain first."""
    return EIGHTEEN.twin_name(dataset, axis)
