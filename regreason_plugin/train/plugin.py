"""The plugin class that Axolotl calls: `plugins: [regreason_plugin.RegReasonPlugin]`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin

from regreason_plugin.core import cpu_processes
from regreason_plugin.core.errors import UserError, stop_on_user_error
from regreason_plugin.core.model_use import ModelUse
from regreason_plugin.core.training_curves import LOG, LineFile
from regreason_plugin.train.budget import set_length
from regreason_plugin.train.chat_template import (
    check_special_tokens,
    template_arguments,
    use_in_training,
)
from regreason_plugin.train.checkpoint import read_state, write_state
from regreason_plugin.train.class_weights import class_weights
from regreason_plugin.train.comparable_arms import (
    DEFAULT_SEED,
    check_comparison,
    check_same_rows,
)
from regreason_plugin.train.config_checks import check_config
from regreason_plugin.train.data_files import Sources, fill_placeholders, find_sources
from regreason_plugin.train.families import token_rows
from regreason_plugin.train.findings import config_name, raise_first, say
from regreason_plugin.train.label_span import (
    LabelPosition,
    check_label_cuts,
    label_cuts,
    locate_labels,
)
from regreason_plugin.train.output_lock import OutputLock
from regreason_plugin.train.prefix_packing import KEY as PREFIX_PACKING
from regreason_plugin.train.prefix_packing import PackingCheckCallback, families_of, keep_order
from regreason_plugin.train.probe_batch import PROBES_FILE, ProbeCallback, load_batch
from regreason_plugin.train.record import (
    DEFAULT_OUTPUT,
    TrainingProgress,
    check_other_run,
    config_sha256,
    write_record,
)
from regreason_plugin.train.scoring import RESULTS, Scoring, clear, read_scoring, score
from regreason_plugin.train.target_logits import why_all_logits
from regreason_plugin.train.trainer import RegReasonTrainer

_HANDED_OVER = "regreason_checked_config"
# Keys that Axolotl's commands set in a config if they do not train.
_WITHOUT_TRAINING = ("is_preprocess", "merge_lora")


class RegReasonPlugin(BasePlugin):  # type: ignore[misc]  # axolotl is untyped
    """Fills in the arm, checks config and data, and records what was trained.

    Axolotl makes the object; a config only names the class.

    Example:
        In a config for `axolotl train`::

            plugins: [regreason_plugin.RegReasonPlugin]
            regreason_arm: explanation
    """

    def __init__(self) -> None:
        super().__init__()
        self.sources: Sources | None = None
        self.config_sha256 = ""
        self._trainer: Any = None
        self.progress: TrainingProgress | None = None
        self.scoring: Scoring | None = None
        self._template: dict[str, bool] = {}
        self._use = ModelUse()
        self.lock: OutputLock | None = None

    def get_input_args(self) -> str:
        """Path of the class that declares the plugin's keys in Axolotl's config."""
        return "regreason_plugin.train.config_keys.RegReasonArgs"

    def register(self, cfg: Any) -> None:
        """Check the config and fill in its placeholders, before anything is written."""
        if cfg.get("use_ray") and cfg.get(_HANDED_OVER):
            self._register_in_ray_worker(cfg)
            return
        self.config_sha256 = config_sha256(cfg)
        config = config_name(cfg)
        with stop_on_user_error():
            raise_first(check_config(cfg, config))
            fill_placeholders(cfg, config)
            keep_order(cfg)
            self.sources = find_sources(cfg, config)
            self.scoring = read_scoring(cfg, self.sources.folder, config)
            say(raise_first(check_same_rows(self.sources, all_arms=False)))
            if not any(cfg.get(key) for key in _WITHOUT_TRAINING):
                self._take_output(cfg, config)
        if cfg.get("seed") is None:
            cfg["seed"] = DEFAULT_SEED
        if cfg.get("num_epochs", 1) is None:
            # A sweep leaves num_epochs out by setting it to null, which Axolotl does not accept.
            del cfg["num_epochs"]
        if cfg.get("use_ray"):
            cfg[_HANDED_OVER] = self.config_sha256
        cpu_processes.join(cfg)

    def _take_output(self, cfg: Any, config: str) -> None:
        """Lock output_dir for this run; raise a UserError if it belongs to another run."""
        lock = None
        if _is_first_process():
            lock = OutputLock(Path(cfg.get("output_dir") or DEFAULT_OUTPUT), config)
        try:
            raise_first(check_other_run(cfg, config, self.config_sha256))
        except UserError:
            if lock is not None:
                lock.release()
            raise
        self.lock = lock

    def _register_in_ray_worker(self, cfg: Any) -> None:
        # Axolotl registers plugins in the process that starts Ray, and again in each worker. A
        # worker gets the first process's config: already checked, with its placeholders filled,
        # and with keys that Axolotl has added.
        self.config_sha256 = cfg[_HANDED_OVER]
        with stop_on_user_error():
            config = config_name(cfg)
            self.sources = find_sources(cfg, config)
            self.scoring = read_scoring(cfg, self.sources.folder, config)

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> None:
        """Check that training and lm-eval use the same tokens; Axolotl itself loads the data."""
        from axolotl.loaders import load_tokenizer

        assert self.sources is not None
        cpu_processes.place_model(cfg)
        with stop_on_user_error():
            tokenizer = load_tokenizer(cfg)
            findings = raise_first(check_special_tokens(cfg, self.sources, tokenizer))
            processes = int(os.environ.get("WORLD_SIZE", "1"))
            findings += check_comparison(cfg, self.sources.arm, processes)
            self._template = template_arguments(cfg, self.sources, tokenizer)
            self._use = use_in_training(cfg, self.sources, tokenizer, self._template)
        say(findings)

    def pre_lora_load(self, cfg: Any, model: Any) -> None:
        """Seed the random initialisation of the adapter; Axolotl does not seed it."""
        from transformers import set_seed

        set_seed(cfg.seed)

    def get_trainer_cls(self, cfg: Any) -> type[RegReasonTrainer]:
        """The plugin's trainer, a subclass of Axolotl's."""
        return RegReasonTrainer

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Training arguments that Axolotl's config has no key for."""
        return {
            "label_smoothing_factor": cfg.regreason_label_smoothing or 0.0,
            # True would drop the last validation rows if only the train rows are packed.
            "dataloader_drop_last": False,
        }

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Check rows and labels, set the number of steps, and delete an earlier run's record."""
        from axolotl.utils.train import determine_last_checkpoint

        assert self.sources is not None
        about = {
            "arm": self.sources.arm,
            "data_sha256": self.sources.folder.sha256,
            "config_sha256": self.config_sha256,
            "processes": int(trainer.accelerator.num_processes),
        }
        rows = len(trainer.train_dataset)
        with stop_on_user_error():
            if rows != self.sources.rows:
                raise UserError(
                    f"Axolotl would train on {rows} of the {self.sources.rows} rows in the "
                    "train files, but every arm must train on the same rows",
                    path=cfg.axolotl_config_path,
                    field="datasets",
                )
            checkpoint = determine_last_checkpoint(cfg)
            resumed = read_state(Path(checkpoint), about) if checkpoint else None
            counts = self.sources.labels()
            label_place = locate_labels(
                trainer.train_dataset["labels"],
                counts,
                trainer.processing_class,
                self.sources.folder.order,
                self.sources.folder.declaration.written,
                self.sources.folder.declaration.normalise,
            )
            weights = None
            if given := cfg.regreason_class_weights:
                written = self.sources.folder.declaration.written
                by_label = class_weights(given, counts, list(written), cfg.axolotl_config_path)
                weights = [by_label[number] for number in label_place.numbers]
        cuts = label_cuts(label_place, trainer.processing_class)
        say(check_label_cuts(cuts, cfg.axolotl_config_path))
        all_logits = why_all_logits(cfg, trainer.model, trainer.args.n_gpu)
        trainer.target_logits = cfg.regreason_target_logits and all_logits is None
        if cfg.regreason_prefix_packing:
            with stop_on_user_error():
                self._pack_prefixes(cfg, trainer, label_place, all_logits)
        set_length(cfg, trainer)
        output, first = Path(cfg.output_dir), _is_first_process()
        step = resumed["step"] if resumed else 0
        file, probes = (
            LineFile(output / name, step) if first else None for name in (LOG, PROBES_FILE)
        )
        by_step = cfg.regreason_loss_mean == "step"
        share = cfg.regreason_label_share
        trainer.prepare(label_place, share, by_step, weights, about, file, resumed)
        if cfg.regreason_probe_steps:
            batch = load_batch(cfg, self.sources, trainer.processing_class, self._template)
            trainer.add_callback(ProbeCallback(trainer, batch, cfg.regreason_probe_steps, probes))
        self._trainer = trainer
        if first:
            write_state(output, about)
            clear(output)

    def _pack_prefixes(
        self, cfg: Any, trainer: Any, label_place: LabelPosition, all_logits: str | None
    ) -> None:
        """Let the trainer draw and compute rows that share a prefix together."""
        assert self.sources is not None
        if all_logits is not None:
            raise UserError(
                f"cannot be used here: {all_logits}",
                path=cfg.axolotl_config_path,
                field=PREFIX_PACKING,
            )
        folder, names = self.sources.folder, self.sources.files
        of_files = (row for name in names for row in folder.rows(name))
        rows = token_rows(trainer.train_dataset, of_files, label_place)
        trainer.families = families_of(cfg, rows)
        trainer.packs_prefixes = True
        trainer.add_callback(PackingCheckCallback(trainer, rows))

    def post_train(self, cfg: Any, model: Any) -> None:
        """Keep the training's length and cost; Axolotl calls this before and after saving."""
        if self._trainer is not None:
            self.progress = TrainingProgress.of(self._trainer)
            self._trainer = None

    def post_train_unload(self, cfg: Any) -> None:
        """Write the record, which marks the training as finished; then the card and the scores."""
        # Import here: only the card needs the modules that read results.
        from regreason_plugin.train.model_card import write_card

        assert self.sources is not None
        assert self.progress is not None
        if _is_first_process():
            write_record(
                cfg,
                self.sources,
                self.progress,
                self.config_sha256,
                self._use,
                self._template,
            )
            output = Path(cfg.output_dir)
            write_card(output)
            if self.scoring is not None:
                score(cfg, self.scoring, self._template)
                if self.scoring.has_ours:
                    with stop_on_user_error():
                        write_card(output, output / RESULTS)
        if self.lock is not None:
            self.lock.release()


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
