"""The training that is done in many ways: three steps, each of all rows."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_train import axolotl_train, environment
from training_data import build_data, config, write_config

SHARE = 0.3
STEPS = 3
LEARNING_RATE = 0.5
TWO = ("--launcher", "torchrun", "--", "--nproc_per_node=2")
PLUGINS = ["regreason_plugin.training.RegReasonPlugin", "watching_plugin.WatchingPlugin"]
LEARNT = ("loss", "grad_norm", "label_loss", "explanation_loss", "label_acc")
LOGGED = (*LEARNT, "label_tokens_seen", "target_tokens_seen")


@dataclass(frozen=True)
class Trained:
    """What a training printed and left."""

    output: str
    folder: Path

    @cached_property
    def log(self) -> list[dict[str, float]]:
        """The lines of the log, one a step."""
        lines = re.findall(r"\{'loss'.*?\}", self.output)
        return [
            {name: float(value) for name, value in re.findall(r"'([^']+)': '?([-\d.e+]+)'?", line)}
            for line in lines
        ]

    def adapter(self, checkpoint: str = "") -> dict[str, torch.Tensor]:
        """Its weights, at the end or at a checkpoint."""
        return load_file(self.folder / checkpoint / "adapter_model.safetensors")


class Trainings:
    """Trains by name, each name once; every training goes over all rows three times.

    Args:
        model: The base.
        folder: Where the data and the models go.
    """

    def __init__(self, model: Path, folder: Path) -> None:
        self.model = model
        self._folder = folder
        self._done: dict[str, Trained] = {}
        self.data = build_data(folder / "data", rows=24)
        self.rows = self.data.manifest.counts["train"].rows
        assert self.rows % 4 == 0

    def config(self, name: str, batch: int, **changes: Any) -> Path:
        """Write a config, whose model goes to ``model`` beside it."""
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
            # The first step of gradient descent is the gradient; momentum and a falling
            # rate are what a resumed training has to remember.
            optimizer="sgd",
            optim_args={"momentum": 0.9},
            learning_rate=LEARNING_RATE,
            lr_scheduler="linear",
            max_grad_norm=1e6,
        )
        return write_config(folder / "config.yml", values | changes)

    def __call__(
        self, name: str, *arguments: str, batch: int | None = None, **changes: Any
    ) -> Trained:
        """Train; a step is a batch of all rows unless told otherwise."""
        if name not in self._done:
            file = self.config(name, batch or self.rows, **changes)
            launcher = arguments or ("--launcher", "python")
            # (DeepSpeed's first run with several processes compiles a library.)
            found = axolotl_train(file, *launcher, cwd=self._folder, timeout=800)
            assert found.returncode == 0, found.stderr[-4000:]
            self._done[name] = Trained(found.stdout + found.stderr, file.parent / "model")
        return self._done[name]


@contextmanager
def launched(command: list[str], output: Path, **variables: str) -> Iterator[Popen[bytes]]:
    """Run a command that writes to a file; whatever is left of it ends with the block."""
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
                # (torchrun hands on to its workers what it can catch.)
                os.killpg(process.pid, signal.SIGTERM)


def waits(config: Path, rank: int, running: Sequence[Popen[bytes]]) -> int:
    """The process that stopped where ``WAIT`` told it to, once it has."""
    file = config.with_name(f"waits-{rank}")
    until = time.monotonic() + 300
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < until
        assert all(one.poll() is None for one in running), "ended before it came to wait"
        time.sleep(0.1)
    return int(file.read_text())


def same_log(
    found: list[dict[str, float]],
    expected: list[dict[str, float]],
    names: Sequence[str] = LOGGED,
) -> None:
    """Assert that two logs say the same."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for name in names:
            assert ours[name] == pytest.approx(theirs[name], rel=2e-4), name


def same_adapter(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Assert that two adapters are the same within what float32 adds up to."""
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert torch.allclose(values, expected[name], atol=1e-5), name
