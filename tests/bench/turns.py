"""Trainings that take turns: while one makes a step, the others wait.

Each training is a real `axolotl train` in a process of its own. Other load on the machine slows all
of them alike, so each step gives one ratio.
"""

from __future__ import annotations

import os
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback

ROOT = Path(__file__).parents[2]
PLUGIN = "bench.turns.TurnsPlugin"


class Step(NamedTuple):
    """What one training step took.

    Attributes:
        seconds: Wall-clock seconds.
        core: CPU seconds.
        added_mib: Peak of the process's memory so far, minus its memory before the first step.
    """

    seconds: float
    core: float
    added_mib: float


# --- inside a training ------------------------------------------------------------------


class TurnsPlugin(BasePlugin):  # type: ignore[misc]  # axolotl is untyped
    """Makes each step wait for its turn, and reports what the step took."""

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Add the callback that runs at each step."""
        return [_Turns(int(os.environ["BENCH_PORT"]), os.environ["BENCH_NAME"])]


class _Turns(TrainerCallback):  # type: ignore[misc]
    def __init__(self, port: int, name: str) -> None:
        self._stream = socket.create_connection(("127.0.0.1", port)).makefile("rw")
        self._started: tuple[float, float] | None = None
        self._before = 0.0
        print(name, file=self._stream, flush=True)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Report the time since the last step began, which covers its batch and its log line."""
        if self._started is None:
            self._before = psutil.Process().memory_info().rss / 2**20
        else:
            wall, core = time.perf_counter(), time.process_time()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            took = Step(wall - self._started[0], core - self._started[1], peak - self._before)
            print(*took, file=self._stream, flush=True)
        self._stream.readline()
        self._started = time.perf_counter(), time.process_time()


# --- around the trainings ---------------------------------------------------------------


def take_turns(
    configs: Mapping[str, Path], steps: int, warm_up: int, threads: int
) -> dict[str, list[Step]]:
    """Run trainings side by side, step by step in a random order.

    Args:
        configs: The config of each training, by name; it lists `PLUGIN` and has enough steps.
        steps: Number of steps to measure.
        warm_up: Number of steps before them.
        threads: Number of threads of each training.

    Returns:
        What each step of each training took.
    """
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(1)
        port = server.getsockname()[1]
        processes = [
            stack.enter_context(_training(name, config, port, threads))
            for name, config in configs.items()
        ]
        turns: dict[str, Any] = {}
        while len(turns) < len(configs):
            if any(process.poll() is not None for process in processes):
                raise RuntimeError("a training ended before its first step; see above")
            with suppress(TimeoutError):
                connection, _ = server.accept()
                connection.settimeout(None)
                stream = stack.enter_context(connection.makefile("rw"))
                turns[stream.readline().strip()] = stream
        taken: dict[str, list[Step]] = {name: [] for name in configs}
        order = list(configs)
        shuffle = random.Random(0).shuffle
        for step in range(warm_up + steps):
            print(f"\rstep {step + 1} of {warm_up + steps}", end="", file=sys.stderr)
            shuffle(order)
            for name in order:
                print("go", file=turns[name], flush=True)
                answer = turns[name].readline()
                if not answer:
                    raise RuntimeError(f"{name}: the training ended; see above")
                if step >= warm_up:
                    taken[name].append(Step(*map(float, answer.split())))
        print(file=sys.stderr)
    return taken


@contextmanager
def _training(
    name: str, config: Path, port: int, threads: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `axolotl train`; if the block fails, print the end of its output."""
    variables = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": str(threads),
        "BENCH_PORT": str(port),
        "BENCH_NAME": name,
    }
    said = config.with_suffix(".log")
    with (
        said.open("w") as stream,
        subprocess.Popen(
            ["axolotl", "train", str(config), "--launcher", "python"],
            env=os.environ | variables,
            stdout=stream,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield process
        except BaseException:
            print(f"--- {name}\n{said.read_text()[-2000:]}", file=sys.stderr)
            raise
        finally:
            process.kill()
