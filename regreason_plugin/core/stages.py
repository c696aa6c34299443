"""Long work in stages, each of which runs one command, for `regreason demo` and `regreason study`.

``stages.json`` records every finished stage with a hash of its inputs. So work that was killed
continues where it stopped, and a stage whose inputs have changed runs again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from regreason_plugin.core.whole_files import atomic_writer, writing

console = Console()
LOCK = ".lock"
# With fewer free bytes than this, the message about a failed stage says that the disk is full.
_LITTLE_SPACE = 1 << 20


@dataclass(frozen=True)
class Stage:
    """One command with its inputs and the check that it has finished.

    Attributes:
        name: Name such as ``train explanation``; the first word is the stage's kind.
        command: The command to print and run, as a list of words; or a function that returns it,
            if it depends on the result of an earlier stage.
        inputs: Hash of everything that the result depends on.
        done: Function that returns whether the stage's result is there.
        after: Names of the stages that have to finish before this one starts.
        clears: Folder of unfinished work, which is removed before the stage starts.
        seconds: Estimated seconds, used until a stage of the same kind has run.
    """

    name: str
    command: list[str] | Callable[[], list[str]]
    inputs: str
    done: Callable[[], bool]
    after: tuple[str, ...] = ()
    clears: Path | None = None
    seconds: float = 60.0

    def words(self) -> list[str]:
        """The words of the command; the stages in ``after`` have to be finished."""
        return self.command() if callable(self.command) else self.command

    @property
    def kind(self) -> str:
        """The first word of the name; stages of one kind take about the same time."""
        return self.name.split()[0]


def hash_of(*parts: str) -> str:
    """A short hash of a stage's inputs."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def program(name: str) -> str | None:
    """The path of a command; None if it is not installed.

    The folder of this Python comes first, because its environment may not be activated.
    """
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def settings(jobs: int) -> dict[str, str]:
    """Environment variables of the stages; whoever repeats a stage by hand has to set them.

    Args:
        jobs: Number of stages that run at the same time.
    """
    return {
        # Axolotl's telemetry sends data, and hangs without a network.
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        # By default, accelerate gives a process one thread. More than four threads make models
        # this small no faster.
        "OMP_NUM_THREADS": str(max(1, min((os.cpu_count() or 1) // jobs, 4))),
    }


def run_stages(
    out: Path,
    stages: list[Stage],
    jobs: int = 1,
    *,
    gpus: Sequence[int] = (),
    until: float | None = None,
) -> bool:
    """Run the stages that are not finished yet, and print their commands and progress.

    Args:
        out: Folder for logs and for ``stages.json``, the record of finished stages.
        stages: All stages; each comes after the stages that it waits for.
        jobs: Number of stages that run at the same time.
        gpus: Numbers of the GPUs, one for each job; empty if all jobs share all GPUs.
        until: Time on the clock of `time.monotonic`, in seconds. A stage starts only if it is
            expected to end before this time; `unfinished` returns the stages that are left.

    Returns:
        False if a command failed. No further stage is then started; those that are running are
        allowed to end.
    """
    with _locked_folder(out) as lock:
        return _Runner(out, stages, jobs, lock, gpus, until).run()


def unfinished(out: Path, stages: Sequence[Stage]) -> list[Stage]:
    """The stages that have not finished, or that finished with other inputs."""
    record = _Record(out / "stages.json")
    return [stage for stage in stages if not record.finished(stage)]


def seconds_left(out: Path, stages: Sequence[Stage], jobs: int) -> float:
    """Estimated seconds that `run_stages` would take."""
    record = _Record(out / "stages.json")
    left = [record.estimate(stage) for stage in stages if not record.finished(stage)]
    return sum(left) / max(min(jobs, len(left)), 1)


def mark_finished(out: Path, stages: Sequence[Stage]) -> None:
    """Record stages as finished whose results were made elsewhere."""
    record = _Record(out / "stages.json")
    for stage in stages:
        record.add(stage, stage.words(), None)


@dataclass
class _Running:
    stage: Stage
    child: subprocess.Popen[bytes]
    log: Path
    words: list[str]
    started: float
    bar: TaskID
    gpu: int | None


class _Runner:
    def __init__(
        self,
        out: Path,
        stages: list[Stage],
        jobs: int,
        lock: IO[str],
        gpus: Sequence[int],
        until: float | None,
    ) -> None:
        self._out = out
        self._stages = stages
        self._jobs = jobs
        self._lock = lock
        self._gpus = gpus
        self._until = math.inf if until is None else until
        self._record = _Record(out / "stages.json")
        self._waiting = list(stages)
        self._running: list[_Running] = []
        self._finished: set[str] = set()
        self._failed = False
        earlier: set[str] = set()
        for stage in stages:
            assert earlier.issuperset(stage.after), stage.name
            earlier.add(stage.name)

    def run(self) -> bool:
        shown = " ".join(f"{name}={value}" for name, value in settings(self._jobs).items())
        console.print(f"  $ export {shown}", style="cyan", highlight=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bars:
            try:
                while self._start(bars) or self._running:
                    time.sleep(0.25)
                    self._poll(bars)
            finally:
                for running in self._running:
                    running.child.terminate()
                for running in self._running:
                    running.child.wait()
        return not self._failed

    def _start(self, bars: Progress) -> bool:
        """Start the stages that can start now; False if none is left that could start later."""
        for stage in list(self._waiting):
            if self._failed or len(self._running) == self._jobs:
                break
            if not self._finished.issuperset(stage.after):
                continue
            done = self._record.finished(stage)
            if not done and time.monotonic() + self._record.estimate(stage) > self._until:
                # A later, shorter stage may still end in time.
                continue
            self._waiting.remove(stage)
            words = stage.words()
            self._announce(stage, words)
            if done:
                console.print("  done before", style="dim")
                self._finished.add(stage.name)
                continue
            if stage.clears:
                shutil.rmtree(stage.clears, ignore_errors=True)
            self._running.append(self._child(stage, words, bars))
        return bool(self._waiting) and not self._failed and not self._out_of_time()

    def _out_of_time(self) -> bool:
        """Whether no waiting stage could end in time."""
        return not self._running and all(
            time.monotonic() + self._record.estimate(stage) > self._until
            for stage in self._waiting
            if self._finished.issuperset(stage.after)
        )

    def _child(self, stage: Stage, words: list[str], bars: Progress) -> _Running:
        log = self._out / "logs" / f"{stage.name.replace(' ', '-')}.log"
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        # axolotl looks for accelerate on the path, and this environment may not be activated.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**os.environ, **settings(self._jobs), "PATH": path, "PYTHONUNBUFFERED": "1"}
        used = {running.gpu for running in self._running}
        gpu = next((gpu for gpu in self._gpus if gpu not in used), None)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        with log.open("wb") as stream:
            child = subprocess.Popen(
                [program(words[0]) or words[0], *words[1:]],
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=(self._lock.fileno(),),
            )
        bar = bars.add_task(stage.name, total=100)
        return _Running(stage, child, log, words, time.monotonic(), bar, gpu)

    def _poll(self, bars: Progress) -> None:
        """Update the progress bars, and record the stages whose commands have ended."""
        for running in list(self._running):
            code = running.child.poll()
            bars.update(running.bar, completed=_percent_done(running.log))
            if code is None:
                continue
            self._running.remove(running)
            bars.remove_task(running.bar)
            if code != 0 or not running.stage.done():
                self._failed = True
                _show_failure(running.stage, code, running.log)
                continue
            self._record.add(running.stage, running.words, time.monotonic() - running.started)
            self._finished.add(running.stage.name)

    def _announce(self, stage: Stage, words: list[str]) -> None:
        left = [other for other in [stage, *self._waiting] if not self._record.finished(other)]
        left += [running.stage for running in self._running]
        seconds = sum(map(self._record.estimate, left)) / min(self._jobs, max(len(left), 1))
        remaining = f"about {_minutes(seconds)} left" if left else "nothing left to do"
        number = f"{self._stages.index(stage) + 1}/{len(self._stages)}"
        console.print(f"\n[bold]\\[{number}] {stage.name}[/bold] ({remaining})")
        console.print(
            f"  $ {shlex.join(words)}", style="cyan", highlight=False, soft_wrap=True, markup=False
        )


class _Record:
    """The finished stages, with their inputs and the seconds that they took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: dict[str, dict[str, Any]] = (
            json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        )

    def finished(self, stage: Stage) -> bool:
        known: Mapping[str, Any] | None = self.stages.get(stage.name)
        return known is not None and known["inputs"] == stage.inputs and stage.done()

    def add(self, stage: Stage, words: list[str], seconds: float | None) -> None:
        self.stages[stage.name] = {
            "inputs": stage.inputs,
            "seconds": None if seconds is None else round(seconds, 1),
            "command": shlex.join(words),
        }
        with atomic_writer(self.path) as stream:
            stream.write((json.dumps(self.stages, indent=1) + "\n").encode("utf-8"))

    def estimate(self, stage: Stage) -> float:
        """Mean seconds of this kind's finished stages; without any, the stage's own estimate."""
        seconds = [
            known["seconds"]
            for name, known in self.stages.items()
            if name.split()[0] == stage.kind and known["seconds"] is not None
        ]
        return sum(seconds) / len(seconds) if seconds else stage.seconds


@contextmanager
def _locked_folder(out: Path) -> Iterator[IO[str]]:
    """Hold the folder's lock, which child processes inherit and keep until they end.

    When a run is killed, a training that it started may go on. Without the lock, a second run
    would start another training that writes into the same folder.
    """
    with writing(out / LOCK):
        out.mkdir(parents=True, exist_ok=True)
        (out / LOCK).touch()
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"Another run is still working in {out}; waiting until it ends.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _percent_done(log: Path) -> float:
    """The percentage that a command's last progress bar shows, its only sign of progress."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 2000))
        percentages = re.findall(rb"(\d+)%\|", stream.read())
    return float(percentages[-1]) if percentages else 0.0


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _show_failure(stage: Stage, code: int, log: Path) -> None:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    print(*lines[-25:], sep="\n", file=sys.stderr)
    why = f"exited with {code}" if code else "exited with 0 but left no result"
    if shutil.disk_usage(log.parent).free < _LITTLE_SPACE:
        why += ", and the disk is full: free some space"
    print(f"regreason: {stage.name} {why}; its whole output: {log}", file=sys.stderr)
    print("Run the same command again to continue from here.", file=sys.stderr)
