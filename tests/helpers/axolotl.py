"""`axolotl train` as a command: in a fork of a process that has imported it, or really started."""

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
# What `axolotl train` imports up to the trainer, and what scores and compares its models.
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
    """Axolotl looks for accelerate on the PATH, which an environment need not be on.

    And the plugins of the tests lie here, not in a package; the package is this checkout's.
    """
    beside = str(Path(sys.executable).parent)
    path = f"{beside}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}


@cache
def forks() -> ForkServer:
    """The process that has imported Axolotl; it lives until this one ends."""
    server = ForkServer(*TRAINING, environment=environment())
    atexit.register(server.close)
    server.offer(server.programs, "axolotl")
    return server


@cache
def scorers() -> ForkServer:
    """The same for `regreason` and `lm_eval`, without Axolotl, which changes how all of it logs."""
    server = ForkServer(*SCORING, environment=environment())
    atexit.register(server.close)
    return server


def programs() -> Path:
    """A folder with `axolotl`, `regreason`, `lm_eval` and a `python` for them, all forks.

    What `forks` starts finds them there, too, as a training that scores its model.
    """
    folder = forks().programs
    scorers().offer(folder, "regreason", "lm_eval", "python")
    return folder


def axolotl_train(
    *arguments: str | Path, cwd: Path, timeout: int = 300
) -> subprocess.CompletedProcess[str]:
    """The command. With python's launcher it is a fork; others start it really, and take long."""
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
    """What torchrun does: the training twice, each told which of the two it is; both in forks.

    Raises:
        AssertionError: One of them failed.
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
