"""The stages of a study: for each condition and seed a config, an adapter and its scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regreason_plugin.core.base_weights import read_base_weights
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.model_use import RECORD
from regreason_plugin.core.prompt import Order
from regreason_plugin.core.splits import Split
from regreason_plugin.core.stages import Stage, hash_of
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.core.yaml_file import dump_yaml, read_yaml
from regreason_plugin.data_folder.folder import DataFolder, open_data_folder
from regreason_plugin.evaluate.baselines.work import Work
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand
from regreason_plugin.study.study_file import AxolotlKeys, Condition, StudyFile

# Keys of a config that name places. They are not part of a training's inputs.
_PLACES = ("base_model", "datasets", "test_datasets", "dataset_prepared_path", "output_dir")


@dataclass(frozen=True)
class Seconds:
    """Expected seconds of stages: guesses until `cost_estimate` has measured a few steps.

    Attributes:
        train: Seconds of a training, by its keys and the order of its rows.
        score: Seconds of a scoring, by number of documents and their order.
    """

    train: Callable[[AxolotlKeys, Order], float] = lambda keys, order: 300.0
    score: Callable[[int, Order], float] = lambda documents, order: 60.0


@dataclass(frozen=True)
class Plan:
    """The paths of a study's files, and the stages that make them.

    Attributes:
        study: The study file.
        seconds: Expected seconds of the stages.
    """

    study: StudyFile
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def out(self) -> Path:
        """The folder of all files of the study."""
        return self.study.out

    def data(self, order: Order) -> Path:
        """The data folder for an order; the folders of both orders have the same rows."""
        return self.out / "data" / order

    def open_data(self, order: Order) -> DataFolder:
        """Open the data folder for an order, which its stage must have written."""
        return open_data_folder(self.data(order))

    def candidate(self, keys: AxolotlKeys) -> Path:
        """Folder of the adapter that is trained with candidate keys."""
        return self.out / "choice" / "-".join(_text(value) for value in keys.values())

    def model(self, condition: Condition, seed: int) -> Path:
        """Folder of the adapter of a condition and a seed."""
        return self.out / "models" / condition.name / str(seed)

    def results(self, condition: Condition, seed: int) -> Path:
        """Folder of the scores of a condition and a seed, with a subfolder for each split."""
        return self.out / "results" / condition.name / str(seed)

    @property
    def baselines(self) -> Path:
        """Folder of the results of `regreason baselines`, with a subfolder for each method."""
        return self.out / "results" / "baselines"

    # --- stages -----------------------------------------------------------------------------

    def building(self) -> list[Stage]:
        """The stages that build the data, one for each order."""
        return [self._build(order) for order in self.study.orders]

    def choosing(self) -> list[Stage]:
        """The trainings that the keys are chosen from; the data folders must exist."""
        choose = self.study.choose
        if choose is None:
            return []
        (condition,) = (one for one in self.study.conditions if one.name == choose.condition)
        candidates = [(keys, self.candidate(keys)) for keys in choose.candidates()]
        return [
            self._train(f"choose {model.name}", condition, keys, choose.seed, model)
            for keys, model in candidates
        ]

    def comparing(self, chosen: AxolotlKeys) -> list[Stage]:
        """Train and score every condition with every seed, seed by seed; then the baselines."""
        stages = [
            stage
            for seed in self.study.seeds
            for condition in self.study.conditions
            for stage in self.run_stages(condition, seed, chosen)
        ]
        return [*stages, *self._baselines()]

    def run_stages(self, condition: Condition, seed: int, chosen: AxolotlKeys) -> list[Stage]:
        """Train one model, and score it on the test rows and on train rows."""
        name = f"{condition.name} {seed}"
        train = self._train(f"train {name}", condition, chosen, seed, self.model(condition, seed))
        return [train, *self._score(name, condition, seed, train)]

    def _build(self, order: Order) -> Stage:
        study, folder = self.study, self.data(order)
        data = study.data
        source = data.task or data.ratings or "mini"
        command = ["regreason", "build", str(source), "--out", str(folder)]
        if data.mini:
            command += ["--per-dataset", str(data.mini)]
        if data.at_most:
            sizes = ",".join(f"{split}={rows}" for split, rows in data.at_most.items())
            command += ["--at-most", sizes]
        command += ["--arms", ",".join(study.arms), "--order", order, "--leaks", data.leaks]
        command += ["--seed", str(data.seed)]
        return Stage(
            f"data {order}",
            command,
            hash_of(*_sources(study), *command),
            (folder / "manifest.json").is_file,
            seconds=15,
        )

    def _train(
        self, name: str, condition: Condition, chosen: AxolotlKeys, seed: int, model: Path
    ) -> Stage:
        keys = self.config(condition, chosen, seed, model)
        file = self.out / "configs" / f"{name.partition(' ')[2].replace(' ', '-')}.yml"
        _write_if_changed(file, dump_yaml(keys))
        trained = {key: value for key, value in keys.items() if key not in _PLACES}
        files = self.open_data(condition.order).manifest.files
        return Stage(
            name,
            ["axolotl", "train", str(file), "--launcher", "python"],
            hash_of(
                *(files[f"{split}/{condition.arm}.jsonl"] for split in ("train", "validation")),
                base_hash(self.study.base),
                json.dumps(trained, sort_keys=True),
            ),
            (model / RECORD).is_file,
            clears=model,
            seconds=self.seconds.train(keys, condition.order),
        )

    def _score(self, name: str, condition: Condition, seed: int, train: Stage) -> Iterator[Stage]:
        folder = self.open_data(condition.order)
        counts = folder.manifest.counts
        scoring = self.study.scoring
        generative = condition.order == "explanation_first"
        limits: dict[Split, int | None] = {"test": None}
        if scoring.train_rows and not generative:
            limits["train"] = scoring.train_rows
        for split, limit in limits.items():
            kind = "generate" if generative else "score" if split == "test" else "score-train"
            results = self.results(condition, seed) / split
            probe = scoring.probe if split == "test" else None
            documents = counts[split].rows
            yield Stage(
                f"{kind} {name}",
                self.scoring(condition, self.model(condition, seed), split, results, limit),
                hash_of(train.inputs, folder.manifest.files["test.jsonl"], str((probe, limit))),
                _has_results(results),
                after=(train.name,),
                clears=results,
                seconds=self.seconds.score(min(documents, limit or documents), condition.order),
            )

    def _baselines(self) -> list[Stage]:
        methods = self.study.baselines
        if not methods:
            return []
        data = self.data("label_first")
        command = ["regreason", "baselines", str(data), "--out", str(self.baselines)]
        command += ["--methods", ",".join(methods), "--model", self.study.base]
        command += ["--seeds", ",".join(map(str, self.study.seeds))]
        if include := self._task_folder(False):
            command += ["--include_path", str(include)]
        (rows,) = read_yaml(self.study.config).value["datasets"]
        if rows["type"] == "chat_template":
            command.append("--apply_chat_template")
        made_from = hash_of(
            self.open_data("label_first").manifest.files["test.jsonl"],
            base_hash(self.study.base),
            *command,
        )
        done = [_has_results(self.baselines / method) for method in methods]
        documents = self.open_data("label_first").manifest.counts["test"].rows
        seconds = self.seconds.score(len(methods) * documents, "label_first")
        if "head" in methods:
            # About as long as the first condition with as many epochs.
            keys = self.config(self.study.conditions[0], {}, 0, self.out)
            epochs = {"num_epochs": Work.epochs}
            seconds += len(self.study.seeds) * self.seconds.train({**keys, **epochs}, "label_first")
        return [
            Stage(
                "baselines",
                command,
                made_from,
                lambda: all(one() for one in done),
                seconds=seconds,
            )
        ]

    def config(
        self, condition: Condition, chosen: AxolotlKeys, seed: int, model: Path
    ) -> dict[str, Any]:
        """The complete Axolotl config of a training."""
        keys = read_yaml(self.study.config).value
        for name, split in (("datasets", "train"), ("test_datasets", "validation")):
            (entry,) = keys[name]
            entry["path"] = str(self.data(condition.order) / split / "{arm}.jsonl")
        changes = {**self.study.training, **chosen, **condition.keys}
        removed = {key for key, value in changes.items() if value is None}
        config = {
            # These evaluations are the points of the learning curve.
            "eval_strategy": "steps",
            "eval_steps": 0.2,
            **keys,
            **changes,
            "regreason_arm": condition.arm,
            "base_model": self.study.base,
            "seed": seed,
            "output_dir": str(model),
            "dataset_prepared_path": str(self.out / "prepared"),
        }
        return {key: value for key, value in config.items() if key not in removed}

    def scoring(
        self, condition: Condition, model: Path, split: Split, results: Path, limit: int | None
    ) -> Callable[[], list[str]]:
        """A function that makes the command that scores a model the way it was trained.

        The function reads the model's record, so it can be called only after the training.
        """

        def words() -> list[str]:
            record = json.loads((model / RECORD).read_text(encoding="utf-8"))
            chat = bool(record["chat_template"])
            arguments = {"pretrained": self.study.base, "peft": str(model)}
            if not record["adapter"]:
                arguments = {"pretrained": str(model)}
            elif chat:
                arguments["tokenizer"] = str(model)
            arguments |= record["model_arguments"] | record["template_arguments"]
            arguments["probe"] = self.study.scoring.probe if split == "test" else "none"
            folder = self.open_data(condition.order)
            generative = condition.order == "explanation_first"
            return LmEvalCommand(
                model_args=arguments,
                tasks=[folder.declaration.tasks_argument(folder.settings(), generative=generative)],
                data_dir=folder.path,
                split=split,
                limit=limit,
                include_path=self._task_folder(generative),
                chat_template=chat,
                output_path=results,
            ).words()

        return words

    def _task_folder(self, generative: bool) -> Path | None:
        """Folder of the lm-eval task files of a user's own task; None for the package's tasks."""
        if self.study.data.task is None:
            return None
        folder = self.study.data.task.parent
        return folder / "explanation_first" if generative else folder


def base_hash(base: str) -> str:
    """Hash of a base model's weights and, if it is a folder, of its tokenizer."""
    weights = read_base_weights(base)
    tokenizer = Path(base) / "tokenizer.json"
    return hash_of(
        base if weights is None else weights.model_dump_json(),
        file_sha256(tokenizer) if tokenizer.is_file() else "",
    )


def _sources(study: StudyFile) -> Iterator[str]:
    """Hashes of the files that the data are built from."""
    from regreason_plugin.core.task_file import read_task
    from regreason_plugin.data_folder.mini import mini_fingerprint

    if study.data.mini:
        yield mini_fingerprint()
    if study.data.ratings:
        yield file_sha256(study.data.ratings)
    if study.data.task:
        yield file_sha256(study.data.task)
        for table in read_task(study.data.task).data.files():
            if not table.is_file():
                raise UserError(
                    "this table of the task does not exist; the comments in the study file may say "
                    "how to get it",
                    path=table,
                )
            yield file_sha256(table)


def _has_results(folder: Path) -> Callable[[], bool]:
    return lambda: any(folder.rglob("results_*.json"))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _write_if_changed(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with atomic_writer(path) as stream:
        stream.write(text.encode("utf-8"))
