"""What the study trains: conditions x seeds, each a config, an adapter and its scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from regreason_plugin.build.arms import ARMS
from regreason_plugin.core.prompt import Order
from regreason_plugin.core.stages import Stage, hash_of
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.demo import LORA, base_hash, eval_command, tasks_hash

# Where the choice of hyperparameters starts the adapter; none of the study's own seeds.
CHOICE_SEED = 0
DATA_SEED = 0


@dataclass(frozen=True)
class Condition:
    """An arm under one regime.

    Attributes:
        name: Of its folders.
        arm: What follows the label.
        order: Whether label or explanation comes first.
        changes: Keys of the config in which it differs from the others.
    """

    name: str
    arm: str
    order: Order = "label_first"
    changes: dict[str, float] = field(default_factory=dict)


CONDITIONS = (
    *(Condition(arm, arm) for arm in ARMS),
    Condition("label_only-smoothing", "label_only", changes={"regreason_label_smoothing": 0.1}),
    Condition("label_only-dropout", "label_only", changes={"lora_dropout": 0.1}),
    *(
        Condition(f"{arm}-share", arm, changes={"regreason_label_share": 0.5})
        for arm in ("explanation", "bag_of_words")
    ),
    *(
        Condition(f"{arm}-explanation_first", arm, "explanation_first")
        for arm in ("explanation", "shuffled")
    ),
)


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters that are chosen."""

    learning_rate: float
    num_epochs: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.learning_rate:g}-{self.num_epochs}"


SETTINGS = tuple(
    Hyperparameters(rate, epochs) for epochs in (1, 2) for rate in (1.25e-4, 2.5e-4, 5e-4, 1e-3)
)


@dataclass(frozen=True)
class Plan:
    """Where everything of a study is, and how it is made.

    Attributes:
        out: The folder of it all.
        seeds: Of the trainings; the data have one seed, so that only the training varies.
        per_dataset: Conversations a dataset.
        conditions: What is trained; the first is what the other label-first ones, of which there
            is one at least, are compared with, and what the hyperparameters are chosen for.
        settings: The hyperparameters to choose from.
    """

    out: Path
    seeds: tuple[int, ...]
    per_dataset: int
    conditions: tuple[Condition, ...] = CONDITIONS
    settings: tuple[Hyperparameters, ...] = SETTINGS

    @property
    def command(self) -> str:
        """What makes it."""
        return f"regreason study --seeds {len(self.seeds)}"

    def describe(self) -> str:
        """What is going to happen, in a sentence."""
        conditions, seeds = len(self.conditions), len(self.seeds)
        return (
            f"{conditions} conditions x {seeds} seeds = {conditions * seeds} trainings on "
            f"generated data, after {len(self.settings)} to choose the hyperparameters"
        )

    def data(self, order: Order) -> Path:
        """The data folder of an order; both have the same rows."""
        return self.out / "data" / order

    def chosen_from(self, setting: Hyperparameters) -> Path:
        """The adapter that a setting is judged by."""
        return self.out / "choice" / setting.name

    def model(self, condition: Condition, seed: int) -> Path:
        """The adapter of a condition and a seed."""
        return self.out / "models" / condition.name / str(seed)

    def results(self, condition: Condition, seed: int) -> Path:
        """Its scores."""
        return self.out / "results" / condition.name / str(seed)

    def choosing(self) -> list[Stage]:
        """The data, and the first condition with every setting there is to choose from."""
        stages = [self._data_stage("label_first"), self._data_stage("explanation_first")]
        for setting in self.settings:
            model = self.chosen_from(setting)
            name = f"choose {setting.name}"
            stages.append(self._train(name, self.conditions[0], setting, CHOICE_SEED, model))
        return stages

    def training(self, setting: Hyperparameters) -> list[Stage]:
        """Every condition with every seed, trained and scored; seed by seed."""
        return [
            stage
            for seed in self.seeds
            for condition in self.conditions
            for stage in self._train_and_score(condition, setting, seed)
        ]

    def _data_stage(self, order: Order) -> Stage:
        from regreason_plugin.build.mini import mini_fingerprint

        folder = self.data(order)
        size = str(self.per_dataset)
        command = ["regreason", "build", "mini", "--out", str(folder), "--per-dataset", size]
        return Stage(
            f"data {order}",
            [*command, "--order", order, "--seed", str(DATA_SEED)],
            hash_of(mini_fingerprint(), size, order, str(DATA_SEED)),
            (folder / "manifest.json").is_file,
            seconds=5,
        )

    def _train_and_score(
        self, condition: Condition, setting: Hyperparameters, seed: int
    ) -> Iterator[Stage]:
        from regreason_plugin.build.mini import mini_tasks

        name = f"{condition.name} {seed}"
        train = self._train(f"train {name}", condition, setting, seed, self.model(condition, seed))
        yield train
        results = self.results(condition, seed)
        first = condition.order == "label_first"
        yield Stage(
            f"{'score' if first else 'generate'} {name}",
            eval_command(
                self.model(condition, seed),
                self.data(condition.order),
                results,
                mini_tasks(generative=not first),
                "output+label+activation",
            ),
            hash_of(train.inputs, tasks_hash()),
            lambda: any(results.rglob("results_*.json")),
            after=(train.name,),
            clears=results,
            seconds=40 if first else 120,
        )

    def _train(
        self, name: str, condition: Condition, setting: Hyperparameters, seed: int, model: Path
    ) -> Stage:
        values = self._config(condition, setting, seed, model)
        file = self.out / "configs" / f"{name.split(' ', 1)[1].replace(' ', '-')}.yml"
        _write_if_changed(file, yaml.safe_dump(values, sort_keys=False))
        data = self._data_stage(condition.order)
        return Stage(
            name,
            ["axolotl", "train", str(file), "--launcher", "python"],
            hash_of(data.inputs, base_hash(), json.dumps(values)),
            (model / "regreason.json").is_file,
            after=(data.name,),
            clears=model,
            seconds=60 + 50 * setting.num_epochs,
        )

    def _config(
        self, condition: Condition, setting: Hyperparameters, seed: int, model: Path
    ) -> dict[str, Any]:
        values: dict[str, Any] = yaml.safe_load(LORA.read_text(encoding="utf-8"))
        for name, split in (("datasets", "train"), ("test_datasets", "validation")):
            (entry,) = values[name]
            entry["path"] = str(self.data(condition.order) / split / "{arm}.jsonl")
        return {
            **values,
            "regreason_arm": condition.arm,
            "learning_rate": setting.learning_rate,
            "num_epochs": setting.num_epochs,
            # Small steps and many of them: a million weights learn faster so.
            "micro_batch_size": 4,
            "seed": seed,
            "output_dir": str(model),
            "dataset_prepared_path": str(self.out / "prepared"),
            # Five points of a learning curve.
            "eval_strategy": "steps",
            "eval_steps": 0.2,
            "logging_steps": 25,
            **condition.changes,
        }


def _write_if_changed(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with atomic_writer(path) as stream:
        stream.write(text.encode("utf-8"))
