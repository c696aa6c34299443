"""The plugin's part of a checkpoint: a file in the folder of Trainer's checkpoint.

A training resumes only from a checkpoint with the same config, data and number of processes. With
others, Axolotl would train on or not train at all, and the record would describe a training that
never took place. Until a training has a record, such a file also stands in output_dir itself and
says which config the weights there belong to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import atomic_writer

STATE = "regreason_state.json"
# Trainer writes this file last, so its presence marks a complete checkpoint.
_LAST = "trainer_state.json"


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write our part of a checkpoint, before Trainer writes its own; or write into output_dir."""
    with atomic_writer(folder / STATE) as stream:
        stream.write(json.dumps(state, indent=2).encode() + b"\n")


def read_state(checkpoint: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """Read our part of a checkpoint, and check it.

    Args:
        checkpoint: The folder from which the training resumes.
        expected: Values that the checkpoint must have.

    Raises:
        UserError: The checkpoint is incomplete, or belongs to another training.
    """
    if not (checkpoint / _LAST).is_file():
        raise UserError(
            f"has no {_LAST}, so it is incomplete; remove the folder, and the training resumes "
            "from the checkpoint before it",
            path=checkpoint,
        )
    if not (checkpoint / STATE).is_file():
        raise UserError(
            f"has no {STATE}, so this version of the plugin did not write it; remove the folder "
            "and start anew",
            path=checkpoint,
        )
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    for name, value in expected.items():
        if state[name] != value:
            raise UserError(
                f"was written with {name} {state[name]}, but this training has {value}; resume "
                "with the first run's settings, or remove the folder to start anew",
                path=checkpoint,
            )
    return state


def read_config_hashes(output_dir: Path) -> Iterator[tuple[Path, str]]:
    """The files of unfinished trainings in output_dir, each with its ``config_sha256``."""
    for file in sorted([*output_dir.glob(STATE), *output_dir.glob(f"checkpoint-*/{STATE}")]):
        yield file, json.loads(file.read_text(encoding="utf-8"))["config_sha256"]
