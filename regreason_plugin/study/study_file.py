"""A study's file: which models are trained on what, how they are scored, and what is asked of them.

``studies/`` holds three, with every key explained in ``studies/esnli.yml``.
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
from regreason_plugin.core.yaml_file import read_yaml
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.data_folder.folder import Leaks
from regreason_plugin.data_folder.split import Split

# Keys of a config that the study writes itself.
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
            raise ValueError(f"{key} is set by the study itself; take it out")
        # YAML reads 2e-4 as a text, and so would Axolotl.
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and _is_number(one):
                raise ValueError(
                    f"{key}: YAML reads {one} as a text, not as a number; write {float(one):f}"
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
    """What the study is about; one of `task`, `ratings` and `mini`.

    Attributes:
        task: The ``task.yml`` of a table of one's own.
        ratings: A ratings file, for any of the eighteen settings.
        mini: The mini benchmark (GENERATED), with so many conversations a dataset.
        at_most: The most texts (or conversations) that a split holds; all without it.
        seed: Of the split and of every draw of an arm; training seeds are others.
        leaks: What happens to the sentences of an explanation that name a label.
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
            raise ValueError("needs one of task, ratings and mini")
        return self


class Condition(_Part):
    """An arm under one regime.

    Attributes:
        name: Of its folders, and of the arm in the comparison.
        arm: What follows the label.
        order: Whether label or explanation comes first.
        keys: Keys of Axolotl's config in which it differs from the others.
    """

    name: str
    arm: str
    order: Order = "label_first"
    keys: AxolotlKeys = Field(default_factory=dict)


class Choice(_Part):
    """How keys are chosen: by the label loss on the validation rows, for one condition.

    Attributes:
        condition: Which; what is chosen then holds for all.
        seed: Of these trainings; none of the study's own.
        grid: The values of each key; every combination is trained.
    """

    condition: str = "label_only"
    seed: int = 0
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)

    _keys = field_validator("grid")(_check_keys)

    def candidates(self) -> list[AxolotlKeys]:
        """Every combination, in the order of the file."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


class Scoring(_Part):
    """How the trained models are scored.

    Attributes:
        probe: The entropies that are measured, as `regreason eval` takes them.
        train_rows: How many train rows of each task are scored too, for the gap between train
            and test loss; 0 for none.
    """

    probe: str = "output+label+activation"
    train_rows: Annotated[int, Field(ge=0)] = 300


class Limits(_Part):
    """Where a run of the study stops.

    Attributes:
        minutes: Nothing is started that would not end within them; None for no limit.
        memory_gib: Main memory that trainings at once may take; None for what is free.
    """

    minutes: Annotated[float, Field(gt=0)] | None = None
    memory_gib: Annotated[float, Field(gt=0)] | None = None


class StudyFile(_Part):
    """A study.

    Attributes:
        title: For a reader.
        out: Everything is written below it.
        data: What the models are trained and scored on.
        base: The model that is trained: a folder or a Hub name.
        config: The Axolotl config from which all other keys are taken.
        training: Keys of it that are another in this study, in every condition. Here as in a
            condition a key without a value is taken out.
        choose: How keys are chosen; None where nothing is.
        conditions: What is trained, by name. The first is the baseline of the comparison.
        seeds: Of the trainings. The data have one seed, so that only the training varies.
        scoring: How the models are scored.
        baselines: Methods of `regreason baselines` whose scores stand beside the table.
        primary: The primary question of the comparison, ``ARM[:METRIC]``.
        margin: Differences within it count as the same.
        limits: Of time and memory.
        kept: A folder in which finished runs are kept compactly, without texts; None for none.
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
    def _by_name(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            raise ValueError("is a mapping: a name, and below it what is trained")
        return tuple(_condition(str(name), value) for name, value in given.items())

    @model_validator(mode="after")
    def _fits(self) -> StudyFile:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: one stands twice")
        if self.conditions[0].order != "label_first":
            raise ValueError("conditions: the first one is the baseline, which is label_first")
        if sum(one.order == "label_first" for one in self.conditions) < 2:
            raise ValueError("conditions: two of them at least have to be label_first")
        if self.choose is None:
            return self
        names = [one.name for one in self.conditions]
        if self.choose.condition not in names:
            near = nearest(self.choose.condition, names)
            raise ValueError(f"choose: there is no condition {self.choose.condition!r}; {near}")
        if self.choose.seed in self.seeds:
            raise ValueError(
                f"choose: seed {self.choose.seed} is one of the study's seeds, whose models would "
                "be judged by what they were chosen for; take another"
            )
        return self

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        """The orders that its data are built in."""
        return tuple(dict.fromkeys(one.order for one in self.conditions))

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that its data are built with: all, where any is made of explanations."""
        plain = all(one.arm == "label_only" for one in self.conditions)
        return ("label_only",) if plain else ARMS


def _condition(name: str, given: Any) -> Condition:
    keys = dict(given or {})
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{name!r} is no name of a folder: letters, digits, - and _ only")
    arm = keys.pop("arm", name)
    if arm not in ARMS:
        raise ValueError(f"{name}: there is no arm {arm!r}; {nearest(str(arm), list(ARMS))}")
    order = keys.pop("order", "label_first")
    try:
        return Condition(name=name, arm=arm, order=order, keys=_check_keys(keys))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def read_study(path: Path) -> StudyFile:
    """Read and check a study's file; paths in it are as seen from where one stands.

    Raises:
        UserError: With file, line and field; or a file that it names is not there.
    """
    file = read_yaml(path, folder_advice="name the study's file in it")
    if not isinstance(file.value, dict):
        raise UserError("is no study; studies/esnli.yml explains every key of one", path=path)
    study = validate(StudyFile, file.value, path, file.line)
    named = {
        "config": study.config,
        "data.task": study.data.task,
        "data.ratings": study.data.ratings,
    }
    for field, there in named.items():
        if there is not None and not there.is_file():
            raise UserError(
                f"there is no file {there}, as seen from where you stand",
                path=path,
                line=file.line(field.split(".")),
                field=field,
            )
    return study
