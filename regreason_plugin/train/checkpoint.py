"""What a resumed training needs beside Trainer's own checkpoint: a file in its folder.

A checkpoint is only resumed from by the same config, data and number of processes: with
others, Axolotl would train on, or not at all, and the record would speak of a training that
never was. Until a training has its record, such a file also stands in output_dir itself and says
whose the weights there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import atomic_writer

STATE = "regreason_state.json"
# Trainer writes it last, so it stands for a whole checkpoint.
_LAST = "trainer_state.json"


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write our part of a checkpoint, before Trainer writes its own; or of output_dir."""
    with atomic_writer(folder / STATE) as stream:
        stream.write(json.dumps(state, indent=2).encode() + b"\n")


def read_state(checkpoint: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """Read it back.

    Args:
        checkpoint: The folder that the training goes on from.
        expected: What has to be in it.

    Raises:
        UserError: The checkpoint is not whole, or of another training.
    """
    if not (checkpoint / _LAST).is_file():
        raise UserError(
            f"has no {_LAST}, so it was not written to its end; remove the folder, and the "
            "training goes on from the checkpoint before it",
            path=checkpoint,
        )
    if not (checkpoint / STATE).is_file():
        raise UserError(
            f"has no {STATE}, so it is not of this version of the plugin; remove the folder and "
            "start anew",
            path=checkpoint,
        )
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    for name, value in expected.items():
        if state[name] != value:
            raise UserError(
                f"was written with {name} {state[name]}, and this training has {value}; go on as "
                "it was begun, or remove the folder to start anew",
                path=checkpoint,
            )
    return state


def read_config_hashes(output_dir: Path) -> Iterator[tuple[Path, str]]:
    """The ``config_sha256`` of each unfinished training in output_dir, with its file."""
    for file in sorted([*output_dir.glob(STATE), *output_dir.glob(f"checkpoint-*/{STATE}")]):
        yield file, json.loads(file.read_text(encoding="utf-8"))["config_sha256"]
