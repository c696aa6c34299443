"""`regreason.json` beside a trained model: the record of a finished training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from regreason_plugin.core.cost import TrainingCost
from regreason_plugin.core.model_use import RECORD, ModelUse
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.train.checkpoint import STATE, read_config_hashes
from regreason_plugin.train.data_files import Sources
from regreason_plugin.train.findings import Finding, finding
from regreason_plugin.train.scoring import loading_arguments

# Axolotl's default for output_dir.
DEFAULT_OUTPUT = "./model-out"
_PACKAGES = ("regreason", "axolotl", "torch", "transformers", "peft")


@dataclass(frozen=True)
class TrainingProgress:
    """Length and cost of a training.

    Attributes:
        steps: Number of optimizer steps.
        epochs: Number of passes over the train rows.
        label_tokens: Number of label tokens that the loss was taken on, counted batch by batch.
        target_tokens: Number of all tokens that the loss was taken on.
        processes: Number of processes.
        cost: Time, tokens and memory of the training.
    """

    steps: int
    epochs: float
    label_tokens: int
    target_tokens: int
    processes: int
    cost: TrainingCost

    @classmethod
    def of(cls, trainer: Any) -> Self:
        """Read length and cost from a trainer after its training; every process must call this."""
        seen = trainer.tally.seen(trainer.accelerator)
        return cls(
            int(trainer.state.global_step),
            float(trainer.state.epoch or 0),
            seen["label_tokens_seen"],
            seen["target_tokens_seen"],
            int(trainer.accelerator.num_processes),
            trainer.meter.cost(trainer.accelerator),
        )


def read_record(output_dir: Path) -> dict[str, Any] | None:
    """Read the record of a finished run; None if there is no record."""
    file = output_dir / RECORD
    if not file.is_file():
        return None
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


def _declared(folder: DataFolder) -> dict[str, Any]:
    """The declaration of a user's own task; empty for the eighteen settings."""
    declaration = folder.manifest.declaration
    return {} if declaration.rated else {"declaration": declaration.model_dump(mode="json")}


def write_record(
    cfg: Any,
    sources: Sources,
    progress: TrainingProgress,
    config_sha256: str,
    use: ModelUse,
    template: Mapping[str, bool],
) -> None:
    """Write the record of a finished run into its output_dir.

    Args:
        cfg: The config as Axolotl has completed it.
        sources: The data that the run trained on.
        progress: Length and cost of the training.
        config_sha256: Hash of the config as written.
        use: How the model was used in training, and the weights of its base model.
        template: Arguments that the chat template needs in lm-eval's ``--model_args``.
    """
    record = {
        "arm": sources.arm,
        "scope": sources.scope,
        "order": sources.folder.order,
        "data": {
            "path": str(sources.folder.path),
            "sha256": sources.folder.sha256,
            "origin": sources.folder.origin,
            **_declared(sources.folder),
        },
        "base_model": cfg.base_model,
        "adapter": cfg.adapter,
        "chat_template": cfg.datasets[0].type == "chat_template",
        "template_arguments": dict(template),
        "model_arguments": loading_arguments(cfg),
        "use": use.model_dump(mode="json", exclude_none=True),
        "seed": cfg.seed,
        "learning_rate": cfg.learning_rate,
        "label_share": cfg.regreason_label_share,
        "loss_mean": cfg.regreason_loss_mean,
        "class_weights": cfg.regreason_class_weights,
        "prefix_packing": cfg.regreason_prefix_packing or None,
        "label_smoothing": cfg.regreason_label_smoothing,
        "lora_dropout": cfg.lora_dropout,
        "weight_decay": cfg.weight_decay,
        "rows": sources.rows,
        "steps": progress.steps,
        "epochs": progress.epochs,
        "budget": cfg.regreason_budget,
        "budget_tokens": cfg.regreason_target_tokens,
        "label_tokens": progress.label_tokens,
        "target_tokens": progress.target_tokens,
        "processes": progress.processes,
        "cost": progress.cost.model_dump(),
        "config_sha256": config_sha256,
        "versions": {package: version(package) for package in _PACKAGES},
    }
    with atomic_writer(Path(cfg.output_dir) / RECORD) as stream:
        stream.write(json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")
    (Path(cfg.output_dir) / STATE).unlink(missing_ok=True)


def config_sha256(cfg: Mapping[str, Any]) -> str:
    """Hash that identifies a config as written, in any sweep and after any resume."""
    # In every sweep, the config's file gets a new name and output_dir a new number. A resumed run
    # counts as the run that it resumes.
    changing = (
        "axolotl_config_path",
        "output_dir",
        "resume_from_checkpoint",
        "auto_resume_from_checkpoints",
    )
    fixed = {key: value for key, value in dict(cfg).items() if key not in changing}
    written = json.dumps(fixed, sort_keys=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()


def check_other_run(cfg: Mapping[str, Any], config: str, sha256: str) -> Iterator[Finding]:
    """Find a finished or unfinished model of another config in output_dir.

    Two arms with the same output_dir, or a sweep over a key that output_dir does not contain,
    would otherwise train every run into the same folder, and only the last one would remain.

    Args:
        cfg: The config with its placeholders filled.
        config: Name of the config in a finding.
        sha256: Hash of the config as written, from `config_sha256`.
    """
    output = Path(cfg.get("output_dir") or DEFAULT_OUTPUT)
    record = read_record(output)
    states = dict(read_config_hashes(output))
    if record and record.get("config_sha256") != sha256:
        what = "a model trained with another config"
    elif others := [file for file, written in states.items() if written != sha256]:
        what = f"an unfinished training with another config ({others[0].relative_to(output)})"
    elif not record and not states and (weights := _weights(output)):
        what = f"{weights}, but no {RECORD} that says how it was trained"
    else:
        return
    yield finding(
        "error",
        f"{output} holds {what}; put the keys that differ into output_dir, as in "
        "{arm}-{learning_rate}, or remove the folder",
        path=config,
        field="output_dir",
    )


def _weights(folder: Path) -> str | None:
    """Name of a file of weights in a folder; None if there is none."""
    names = (
        path.name
        for pattern in ("adapter_model*", "model*", "pytorch_model*")
        for path in sorted(folder.glob(pattern))
    )
    return next((name for name in names if name.endswith((".safetensors", ".bin"))), None)
