"""What is rated: datasets, axes and labels, read from ``settings.yml``."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from regreason_plugin.errors import UserError, nearest

_DECLARED: dict[str, Any] = yaml.safe_load(
    files("regreason_plugin").joinpath("settings.yml").read_text(encoding="utf-8")
)


class Source(NamedTuple):
    """Where a dataset is described, and under which licence it comes."""

    home: str
    licence: str


LABELS: tuple[str, ...] = tuple(_DECLARED["labels"])
DATASETS: dict[str, str] = {name: item["title"] for name, item in _DECLARED["datasets"].items()}
SOURCES: dict[str, Source] = {
    name: Source(item["home"], item["licence"]) for name, item in _DECLARED["datasets"].items()
}
AXES: dict[str, str] = {name: axis["title"] for name, axis in _DECLARED["axes"].items()}
QUESTIONS: dict[str, str] = {name: axis["question"] for name, axis in _DECLARED["axes"].items()}
SETTINGS: tuple[tuple[str, str], ...] = tuple((d, a) for d in DATASETS for a in AXES)


def task_name(dataset: str, axis: str) -> str:
    """The lm-eval task of a setting, such as ``regreason_coqa_naturalness``."""
    return f"regreason_{dataset}_{axis}"


def generative_task_name(dataset: str, axis: str) -> str:
    """The task of a setting for models that explain first."""
    return f"regreason-gen_{dataset}_{axis}"


def check_name(kind: str, name: str, known: list[str]) -> str:
    """Return ``name`` if it is known.

    Raises:
        UserError: It is not; the nearest known name is in the message.
    """
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    return name
