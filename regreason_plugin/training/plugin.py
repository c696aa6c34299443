"""The plugin as Axolotl calls it: `plugins: [regreason_plugin.training.RegReasonPlugin]`."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin

from regreason_plugin.errors import UserError, stop_on_user_error
from regreason_plugin.report.model_card import write_card
from regreason_plugin.training import cpu_processes
from regreason_plugin.training.chat import check_chat_template
from regreason_plugin.training.checks import check_config
from regreason_plugin.training.label_place import locate_labels
from regreason_plugin.training.record import Progress, read_record, write_record
from regreason_plugin.training.scoring import RESULTS, Scoring, clear, read_scoring, score
from regreason_plugin.training.sources import Sources, fill_placeholders, find_sources
from regreason_plugin.training.sweep import config_name
from regreason_plugin.training.trainer import RegReasonTrainer


class RegReasonPlugin(BasePlugin):  # type: ignore[misc]  # axolotl is untyped
    """Fills in the arm, refuses silent mistakes, and writes down what was trained."""

    def __init__(self) -> None:
        super().__init__()
        self._sources: Sources | None = None
        self._config_sha256 = ""
        self._trainer: Any = None
        self._progress: Progress | None = None
        self._scoring: Scoring | None = None

    def get_input_args(self) -> str:
        """Our keys in Axolotl's config."""
        return "regreason_plugin.training.args.RegReasonArgs"

    def register(self, cfg: Any) -> None:
        """Check the config and fill in what it leaves open, before anything is written."""
        written = json.dumps(_plain(cfg), sort_keys=True, default=str)
        self._config_sha256 = hashlib.sha256(written.encode()).hexdigest()
        config = config_name(cfg)
        with stop_on_user_error():
            check_config(cfg, config)
            given = cfg.get("output_dir")
            fill_placeholders(cfg, config)
            self._sources = find_sources(cfg, config)
            self._scoring = read_scoring(cfg, self._sources.folder, config)
            if cfg.get("output_dir") != given:
                self._refuse_other_run(cfg, config)
        cpu_processes.join(cfg)

    def _refuse_other_run(self, cfg: Any, config: str) -> None:
        # A sweep over a key that output_dir does not name would train every run into
        # the same folder, the last one winning.
        record = read_record(Path(cfg["output_dir"]))
        if record and record.get("config_sha256") != self._config_sha256:
            raise UserError(
                f"{cfg['output_dir']} holds a model trained with another config; put the keys "
                "that differ into it, as in {arm}-{learning_rate}, or remove the folder",
                path=config,
                field="output_dir",
            )

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> None:
        """Hold a chat template against lm-eval's use of it; Axolotl loads the data."""
        assert self._sources is not None
        cpu_processes.place_model(cfg)
        with stop_on_user_error():
            check_chat_template(cfg, self._sources)

    def pre_lora_load(self, cfg: Any, model: Any) -> None:
        """Seed the random start of the adapter, which Axolotl leaves to chance."""
        from transformers import set_seed

        set_seed(cfg.seed)

    def get_trainer_cls(self, cfg: Any) -> type[RegReasonTrainer]:
        """Our trainer, which is Axolotl's and more."""
        return RegReasonTrainer

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """What Axolotl's config has no key for."""
        return {"label_smoothing_factor": cfg.regreason_label_smoothing or 0.0}

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Count what will be trained, and take away what is said of an earlier run."""
        assert self._sources is not None
        found = len(trainer.train_dataset)
        with stop_on_user_error():
            if found != self._sources.rows:
                raise UserError(
                    f"Axolotl would train on {found} rows of the {self._sources.rows} in the "
                    "train files; the arms must keep the same rows",
                    path=cfg.axolotl_config_path,
                    field="datasets",
                )
            place = locate_labels(
                trainer.train_dataset["labels"],
                self._sources.labels(),
                trainer.processing_class,
                self._sources.folder.order,
            )
        trainer.prepare(place, cfg.regreason_label_share)
        self._trainer = trainer
        if _is_first_process():
            clear(Path(cfg.output_dir))

    def post_train(self, cfg: Any, model: Any) -> None:
        """Remember how far the training went; Axolotl calls this before and after saving."""
        if self._trainer is not None:
            self._progress = Progress.of(self._trainer)
            self._trainer = None

    def post_train_unload(self, cfg: Any) -> None:
        """Write the record, which stands for a finished training; then card and scores."""
        assert self._sources is not None
        assert self._progress is not None
        if _is_first_process():
            write_record(cfg, self._sources, self._progress, self._config_sha256)
            output = Path(cfg.output_dir)
            write_card(output)
            if self._scoring is not None:
                score(cfg, self._scoring)
                if self._scoring.has_ours:
                    with stop_on_user_error():
                        write_card(output, output / RESULTS)


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _plain(cfg: Any) -> dict[str, Any]:
    # The file a sweep hands over has a new name every time, and output_dir a new number.
    return {
        key: value
        for key, value in dict(cfg).items()
        if key not in ("axolotl_config_path", "output_dir")
    }
