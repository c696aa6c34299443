"""A training of three steps over all rows, which tests run in many ways."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import Any

import pytest
import torch
from helpers.axolotl import PYTHON, axolotl_train, environment, train_with_two_processes
from helpers.training_data import build_data, config, write_config
from safetensors.torch import load_file

SHARE = 0.3
STEPS = 3
LEARNING_RATE = 0.5
TORCHRUN = ("--launcher", "torchrun", "--", "--nproc_per_node=2")
PLUGINS = ["regreason_plugin.RegReasonPlugin", "helpers.watching_plugin.WatchingPlugin"]
LEARNT = ("loss", "grad_norm", "label_loss", "explanation_loss", "label_token_acc")
LOGGED = (*LEARNT, "label_tokens_seen", "target_tokens_seen")


@dataclass(frozen=True)
class Trained:
    """The output folder of a training."""

    folder: Path

    def log(self, step: int = STEPS) -> list[dict[str, float]]:
        """The lines of the log up to a step, one for each step, with all their digits."""
        file = self.folder / f"checkpoint-{step}" / "trainer_state.json"
        history = json.loads(file.read_text())["log_history"]
        return [line for line in history if "loss" in line]

    def adapter(self, step: int | None = None) -> dict[str, torch.Tensor]:
        """The adapter's weights at the end, or after a step."""
        folder = self.folder / f"checkpoint-{step}" if step else self.folder
        return load_file(folder / "adapter_model.safetensors")

    @property
    def record(self) -> dict[str, Any]:
        """The record of a finished training."""
        found: dict[str, Any] = json.loads((self.folder / "regreason.json").read_text())
        return found

    def rows(self, rank: int) -> list[list[list[int]]]:
        """The rows that a process read, batch by batch; for trainings with `PLUGINS`."""
        lines = self.folder.with_name(f"rows-{rank}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


class Trainings:
    """Trainings by name, each of which runs once and reads all rows three times.

    Args:
        model: The base model.
        folder: Folder for the data and the models.
        texts: Texts of the conversations; the explanations have the same lengths.
        axes: The axes of each conversation.
    """

    def __init__(
        self,
        model: Path,
        folder: Path,
        texts: list[str] | None = None,
        axes: Sequence[str] = ("on_topic",),
    ) -> None:
        self.model = model
        self._folder = folder
        self._done: dict[str, Trained] = {}
        self.data = build_data(folder / "data", rows=24, texts=texts, axes=axes)
        self.rows = self.data.manifest.counts["train"].rows
        assert self.rows % 4 == 0

    def config(self, name: str, batch: int, **changes: Any) -> Path:
        """Write a config whose model is written to the folder ``model`` next to it."""
        folder = self._folder / name
        values = config(
            self.model,
            self.data.path,
            folder,
            regreason_label_share=SHARE,
            output_dir=str(folder / "model"),
            micro_batch_size=batch,
            max_steps=STEPS,
            regreason_budget="steps",
            num_epochs=STEPS,
            logging_steps=1,
            save_strategy="steps",
            save_steps=1,
            # The first step of gradient descent shows the gradient. A resumed training has to
            # restore momentum and the falling learning rate.
            optimizer="sgd",
            optim_args={"momentum": 0.9},
            learning_rate=LEARNING_RATE,
            lr_scheduler="linear",
            max_grad_norm=1e6,
        )
        return write_config(folder / "config.yml", values | changes)

    def __call__(
        self,
        name: str,
        *launcher: str,
        processes: int = 1,
        batch: int | None = None,
        **changes: Any,
    ) -> Trained:
        """Run a training; by default, a step is one batch of all rows.

        Args:
            name: Name of the training.
            launcher: Launcher to start as a process, such as `TORCHRUN`; None for forks.
            processes: Number of processes without a launcher, one or two.
            batch: Number of rows in a batch.
            changes: Changed keys of the config.
        """
        if name not in self._done:
            file = self.config(name, batch or self.rows, **changes)
            # DeepSpeed's first run with several processes compiles a library, which takes long.
            if processes == 2:
                train_with_two_processes(file, cwd=self._folder, timeout=800)
            else:
                found = axolotl_train(file, *(launcher or (PYTHON,)), cwd=self._folder, timeout=800)
                assert found.returncode == 0, found.stderr[-4000:]
            self._done[name] = Trained(file.parent / "model")
        return self._done[name]


@contextmanager
def launched(command: list[str], output: Path, **variables: str) -> Iterator[Popen[bytes]]:
    """Run a command with its output in a file; its remaining processes end with the block."""
    with (
        output.open("w") as stream,
        Popen(
            command,
            cwd=output.parent,
            env=environment() | variables,
            stdout=stream,
            stderr=STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                # torchrun passes this signal on to its workers.
                os.killpg(process.pid, signal.SIGTERM)


def waits(config: Path, rank: int, running: Sequence[Popen[bytes]]) -> int:
    """Wait until a process has stopped at the step in ``WAIT``, and return its process id."""
    file = config.with_name(f"waits-{rank}")
    until = time.monotonic() + 300
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < until
        assert all(one.poll() is None for one in running), "ended before it came to wait"
        time.sleep(0.1)
    return int(file.read_text())


def same_training(found: Trained, expected: Trained, step: int = STEPS) -> None:
    """Assert that two trainings made the same steps up to a step."""
    same_log(found, expected, step)
    # With gradient descent from zero, the weights after the first step show the gradient.
    same_adapter(found.adapter(1), expected.adapter(1), 1e-5 * LEARNING_RATE)
    same_adapter(found.adapter(step), expected.adapter(step))


def same_log(
    found: Trained, expected: Trained, step: int = STEPS, names: Sequence[str] = LOGGED
) -> None:
    """Assert that two logs agree up to a step."""
    ours, theirs = found.log(step), expected.log(step)
    assert len(ours) == len(theirs) == step
    for one, other in zip(ours, theirs, strict=True):
        assert {name: one[name] for name in names} == pytest.approx(
            {name: other[name] for name in names}, rel=0, abs=1e-5
        )


def same_adapter(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], within: float = 1e-5
) -> None:
    """Assert that two adapters are equal up to the rounding errors of float32."""
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert torch.allclose(values, expected[name], rtol=0, atol=within), name
