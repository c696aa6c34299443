"""The paper's eighteen settings, for importers, raters and the mini benchmark.

``paper.yml`` declares them. Code that works for any task reads the declaration in the manifest of
its data folder instead.
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

# People have scored this dataset's responses, so it serves to evaluate raters. It is rated like the
# six others, but it is not one of the settings: no built-in task trains or tests on it.
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
    """The name of a setting's lm-eval task, such as ``regreason_coqa_naturalness``."""
    return EIGHTEEN.task_name(dataset, axis)


def generative_task_name(dataset: str, axis: str) -> str:
    """The name of a setting's task for models that explain first."""
    return EIGHTEEN.twin_name(dataset, axis)
