"""Reads a study file: which models are trained on which data, how they are scored and compared.

``studies/`` holds examples; ``studies/esnli.yml`` explains every key.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.jsonl import validate
from regreason_plugin.core.prompt import Order
from regreason_plugin.core.splits import Split
from regreason_plugin.core.yaml_file import read_yaml
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.data_folder.folder import Leaks

# Keys of an Axolotl config that only the study sets.
_OWN_KEYS = frozenset(
    {
        *("base_model", "datasets", "test_datasets", "dataset_prepared_path", "output_dir"),
        *("plugins", "regreason_arm", "regreason_eval", "seed"),
    }
)
Positive = Annotated[int, Field(gt=0)]
AxolotlKeys = dict[str, Any]


def _check_keys(keys: AxolotlKeys) -> AxolotlKeys:
    for key, value in keys.items():
        if key in _OWN_KEYS:
            raise ValueError(f"{key} is set by the study itself; remove it here")
        # YAML reads 2e-4 as text, and Axolotl would get that text.
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and _is_number(one):
                raise ValueError(
                    f"{key}: YAML reads {one} as text, not as a number; write {float(one):f}"
                )
    return keys


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """The data of the study: exactly one of `task`, `ratings` and `mini`, and how they are built.

    Attributes:
        task: The ``task.yml`` of a user's own table.
        ratings: A ratings file, for any of the eighteen settings.
        mini: Number of conversations per dataset of the mini benchmark (GENERATED data).
        at_most: Maximum number of texts (or conversations) by split; by default all.
        seed: Seed of the split and of all random draws of the arms. Training seeds are separate.
        leaks: Whether to keep or remove sentences of an explanation that name a label.
    """

    task: Path | None = None
    ratings: Path | None = None
    mini: Annotated[int, Field(ge=30)] | None = None
    at_most: dict[Split, Positive] = Field(default_factory=dict)
    seed: int = 0
    leaks: Leaks = "keep"

    @model_validator(mode="after")
    def _is_one(self) -> Data:
        if sum(one is not None for one in (self.task, self.ratings, self.mini)) != 1:
            raise ValueError("needs exactly one of task, ratings and mini")
        return self


class Condition(_Part):
    """A condition: an arm, an order and changed keys of the training config.

    Attributes:
        name: Name of the condition's folders, and of its arm in the comparison.
        arm: The arm, which sets the text beside the label.
        order: Whether the label or the explanation comes first.
        keys: Keys of the Axolotl config that this condition changes.
    """

    name: str
    arm: str
    order: Order = "label_first"
    keys: AxolotlKeys = Field(default_factory=dict)


class Choice(_Part):
    """The choice of keys by the label loss on the validation rows, with one condition.

    Attributes:
        condition: The condition that is trained with every candidate; all conditions get the
            chosen keys.
        seed: Seed of these trainings, different from all seeds of the study.
        grid: The candidate values by key; every combination is trained.
    """

    condition: str = "label_only"
    seed: int = 0
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)

    _keys = field_validator("grid")(_check_keys)

    def candidates(self) -> list[AxolotlKeys]:
        """Every combination of the grid, in the order of the file."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


class Scoring(_Part):
    """The scoring of the trained models.

    Attributes:
        probe: The entropies to measure, as in ``probe=`` of `regreason eval`.
        train_rows: Number of train rows of each task that are also scored, for the gap between
            train and test loss; 0 for none.
    """

    probe: str = "output+label+activation"
    train_rows: Annotated[int, Field(ge=0)] = 300


class Limits(_Part):
    """Limits of a run of the study.

    Attributes:
        minutes: Minutes within which every started stage is expected to end; None for no limit.
        memory_gib: Main memory in GiB for all trainings that run in parallel; None for all free
            memory.
    """

    minutes: Annotated[float, Field(gt=0)] | None = None
    memory_gib: Annotated[float, Field(gt=0)] | None = None


class StudyFile(_Part):
    """The content of a study file.

    Attributes:
        title: Title of the report.
        out: Folder for all files of the study.
        data: The data that the models are trained and scored on.
        base: The base model: a folder or a Hub name.
        config: The Axolotl config, which supplies all keys that the study does not set.
        training: Keys of the Axolotl config that the study changes in every condition. Here and in
            a condition, a key without a value is removed from the config.
        choose: The choice of keys; None if no keys are chosen.
        conditions: The conditions. The first one is the baseline of the comparison.
        seeds: Seeds of the trainings. The data have a single seed, so that only training varies.
        scoring: The scoring of the models.
        baselines: Methods of `regreason baselines` that the report lists after its tables.
        primary: The primary question of the comparison, ``ARM[:METRIC]``.
        margin: Two arms count as the same if they differ by no more than this.
        limits: Limits of time and memory.
        kept: Folder that keeps finished runs compactly, without texts; None to keep none.
    """

    title: Annotated[str, Field(min_length=1)]
    out: Path
    data: Data
    base: Annotated[str, Field(min_length=1)]
    config: Path
    training: AxolotlKeys = Field(default_factory=dict)
    choose: Choice | None = None
    conditions: tuple[Condition, ...] = Field(min_length=2)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    scoring: Scoring = Scoring()
    baselines: tuple[Literal["zero_shot", "few_shot", "tfidf", "head"], ...] = ()
    primary: str | None = None
    margin: Annotated[float, Field(gt=0)] = 0.01
    limits: Limits = Limits()
    kept: Path | None = None

    _keys = field_validator("training")(_check_keys)

    @field_validator("conditions", mode="before")
    @classmethod
    def _by_name(cls, conditions: Any) -> Any:
        if not isinstance(conditions, dict):
            raise ValueError("must be a mapping from the name of each condition to its keys")
        return tuple(_condition(str(name), value) for name, value in conditions.items())

    @model_validator(mode="after")
    def _fits(self) -> StudyFile:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: a seed is listed twice")
        if self.conditions[0].order != "label_first":
            raise ValueError(
                "conditions: the first one is the baseline, so its order must be label_first"
            )
        if sum(one.order == "label_first" for one in self.conditions) < 2:
            raise ValueError("conditions: at least two of them must have the order label_first")
        if self.choose is None:
            return self
        names = [one.name for one in self.conditions]
        if self.choose.condition not in names:
            near = nearest(self.choose.condition, names)
            raise ValueError(f"choose: there is no condition {self.choose.condition!r}; {near}")
        if self.choose.seed in self.seeds:
            raise ValueError(
                f"choose: seed {self.choose.seed} is one of the study's seeds, so the models with "
                "which keys are chosen would also be compared; use another seed"
            )
        return self

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        """The orders for which the data are built."""
        return tuple(dict.fromkeys(one.order for one in self.conditions))

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms for which the data are built: all, unless every condition is label-only."""
        plain = all(one.arm == "label_only" for one in self.conditions)
        return ("label_only",) if plain else ARMS


def _condition(name: str, value: Any) -> Condition:
    keys = dict(value or {})
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(
            f"{name!r} cannot name a folder: a condition's name has only letters, digits, - and _"
        )
    arm = keys.pop("arm", name)
    if arm not in ARMS:
        raise ValueError(f"{name}: there is no arm {arm!r}; {nearest(str(arm), list(ARMS))}")
    order = keys.pop("order", "label_first")
    try:
        return Condition(name=name, arm=arm, order=order, keys=_check_keys(keys))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def read_study(path: Path) -> StudyFile:
    """Read and check a study file; paths in it are relative to the current folder.

    Raises:
        UserError: A value is wrong (the message names file, line and field), or a file that the
            study names does not exist.
    """
    file = read_yaml(path, folder_advice="name the study file in it")
    if not isinstance(file.value, dict):
        raise UserError("is not a study file; studies/esnli.yml explains every key", path=path)
    study = validate(StudyFile, file.value, path, file.line)
    files = {
        "config": study.config,
        "data.task": study.data.task,
        "data.ratings": study.data.ratings,
    }
    for field, named in files.items():
        if named is not None and not named.is_file():
            raise UserError(
                f"there is no file {named} (relative to the current folder)",
                path=path,
                line=file.line(field.split(".")),
                field=field,
            )
    return study
