"""`regreason.json` beside a trained model: what it was trained on, and that it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from typing_extensions import Self

from regreason_plugin.core.cost import TrainingCost
from regreason_plugin.core.model_use import RECORD, ModelUse
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.train.checkpoint import STATE, read_config_hashes
from regreason_plugin.train.data_files import Sources
from regreason_plugin.train.findings import Finding, finding
from regreason_plugin.train.scoring import loading_arguments

# Where Axolotl writes without an output_dir.
DEFAULT_OUTPUT = "./model-out"
_PACKAGES = ("regreason", "axolotl", "torch", "transformers", "peft")


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training went.

    Attributes:
        steps: Optimizer steps.
        epochs: Passes over the train rows.
        label_tokens: Tokens of labels that the loss was taken on, counted as they came.
        target_tokens: All tokens that it was taken on.
        processes: How many shared the work.
        cost: What it took.
    """

    steps: int
    epochs: float
    label_tokens: int
    target_tokens: int
    processes: int
    cost: TrainingCost

    @classmethod
    def of(cls, trainer: Any) -> Self:
        """Read it from a trainer that has just trained; all processes have to."""
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
    """The record of a finished run, or None."""
    file = output_dir / RECORD
    if not file.is_file():
        return None
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


def _declared(folder: DataFolder) -> dict[str, Any]:
    """The labels of a task of one's own; nothing of the eighteen settings."""
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
        sources: What was trained on.
        progress: How far.
        config_sha256: Of the config as written.
        use: What the model read, and its base.
        template: What lm-eval's ``--model_args`` need for the chat template.
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
    """What stands for a config as written, the same wherever and as whatever run it is read."""
    # The file a sweep hands over has a new name every time, and output_dir a new number; a
    # resumed run is the run that was begun.
    changing = (
        "axolotl_config_path",
        "output_dir",
        "resume_from_checkpoint",
        "auto_resume_from_checkpoints",
    )
    kept = {key: value for key, value in dict(cfg).items() if key not in changing}
    written = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()


def check_other_run(cfg: Mapping[str, Any], config: str, sha256: str) -> Iterator[Finding]:
    """A model of another config in output_dir, finished or not.

    Two arms with the same output_dir, or a sweep over a key that it does not name, would train
    every run into the same folder, the last one winning.

    Args:
        cfg: The config, its placeholders filled.
        config: What to call it in a finding.
        sha256: Of the config as written, as `config_sha256`.
    """
    output = Path(cfg.get("output_dir") or DEFAULT_OUTPUT)
    record = read_record(output)
    states = dict(read_config_hashes(output))
    if record and record.get("config_sha256") != sha256:
        what = "a model trained with another config"
    elif others := [file for file, found in states.items() if found != sha256]:
        what = f"an unfinished training with another config ({others[0].relative_to(output)})"
    elif not record and not states and (weights := _weights(output)):
        what = f"{weights}, and no {RECORD} says what it was trained with"
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
    """The name of a file of weights in a folder; None without one."""
    names = (
        path.name
        for pattern in ("adapter_model*", "model*", "pytorch_model*")
        for path in sorted(folder.glob(pattern))
    )
    return next((name for name in names if name.endswith((".safetensors", ".bin"))), None)
