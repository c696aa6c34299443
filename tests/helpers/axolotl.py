"""`axolotl train` as a command: a fork of a process that has imported it, or a new process."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from helpers.forked import ForkServer

ROOT = Path(__file__).parents[2]
PYTHON = "--launcher=python"
# The modules that `axolotl train` imports up to the trainer, and those that score and compare.
TRAINING = (
    *("axolotl.cli.main", "axolotl.cli.train", "axolotl.core.builders", "axolotl.train"),
    *("deepspeed", "multiprocess"),
    *("regreason_plugin.train.plugin", "regreason_plugin.train.strategy"),
)
SCORING = (
    *("lm_eval.evaluator", "lm_eval.models.huggingface"),
    *("regreason_plugin.cli", "regreason_plugin.evaluate.model"),
)


def environment() -> dict[str, str]:
    """Environment variables for Axolotl.

    PATH includes this Python's folder, in which Axolotl looks for accelerate. PYTHONPATH includes
    this checkout and the folder of the tests' plugins, which are not in a package.
    """
    beside = str(Path(sys.executable).parent)
    path = f"{beside}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}


@cache
def forks() -> ForkServer:
    """The fork server that has imported Axolotl; it ends with this process."""
    server = ForkServer(*TRAINING, environment=environment())
    atexit.register(server.close)
    server.offer(server.programs, "axolotl")
    return server


@cache
def scorers() -> ForkServer:
    """The fork server for `regreason` and `lm_eval`; Axolotl would change how they log."""
    server = ForkServer(*SCORING, environment=environment())
    atexit.register(server.close)
    return server


def programs() -> Path:
    """A folder with `axolotl`, `regreason`, `lm_eval` and a `python` for them, all of them forks.

    Commands that `forks` starts find these programs too, such as a training that scores its model.
    """
    folder = forks().programs
    scorers().offer(folder, "regreason", "lm_eval", "python")
    return folder


def axolotl_train(
    *arguments: str | Path, cwd: Path, timeout: int = 300
) -> subprocess.CompletedProcess[str]:
    """Run `axolotl train`: a fork with ``--launcher=python``, otherwise a slow new process."""
    command = ["axolotl", "train", *map(str, arguments)]
    if PYTHON in command:
        return forks().run(*command, cwd=cwd, env=environment(), timeout=timeout)
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def train_with_two_processes(config: Path, cwd: Path, timeout: int = 300) -> None:
    """Start the training in two processes with their ranks, as torchrun does, but as forks.

    Raises:
        AssertionError: One of the processes failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as stack:
        ranks = []
        for rank in ("0", "1"):
            output = stack.enter_context(tempfile.TemporaryFile("w+"))
            variables = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "RANK": rank,
                "LOCAL_RANK": rank,
            }
            child = forks().start(
                *("axolotl", "train", config, PYTHON),
                cwd=cwd,
                stdout=output,
                env=environment() | variables,
            )
            ranks.append((stack.enter_context(child), output))
        for child, output in ranks:
            code = child.wait(timeout)
            output.seek(0)
            assert code == 0, output.read()[-4000:]
