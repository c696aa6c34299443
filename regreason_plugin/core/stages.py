"""Long work as stages, each a command of its own, for `regreason demo` and `regreason study`.

A stage that finished is remembered with the hash of everything it was made from, so work that
was killed goes on where it stopped, and a stage whose inputs changed is not taken for done.
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
# Bytes on a disk below which what failed there is told that it is full.
_LITTLE = 1 << 20


@dataclass(frozen=True)
class Stage:
    """One command, what it is made from and how to tell that it is done.

    Attributes:
        name: Such as ``train explanation``; its first word is its kind.
        command: What is run, and printed; or gives it, where it depends on a stage before.
        inputs: A hash of everything the result depends on.
        done: A file that is there when the stage has finished.
        after: Names of the stages that have to be done before.
        clears: A folder of half-finished work to remove before it starts.
        seconds: A rough guess of what it takes, until a stage of its kind has run.
    """

    name: str
    command: list[str] | Callable[[], list[str]]
    inputs: str
    done: Callable[[], bool]
    after: tuple[str, ...] = ()
    clears: Path | None = None
    seconds: float = 60.0

    def words(self) -> list[str]:
        """The command; the stages before have to be done."""
        return self.command() if callable(self.command) else self.command

    @property
    def kind(self) -> str:
        """The first word of its name: stages of a kind take about the same time."""
        return self.name.split()[0]


def hash_of(*parts: str) -> str:
    """A short hash of what a stage is made from."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def program(name: str) -> str | None:
    """Where a command is: beside this interpreter first, whose environment may not be active."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def settings(jobs: int) -> dict[str, str]:
    """Environment variables that a reader has to set to get what the stages get."""
    return {
        # Axolotl's telemetry calls out, and hangs where there is no network.
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        # accelerate gives a process one thread unless it is told otherwise; more than four
        # gain nothing with models this small.
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
    """Run what is not done yet, and say so as it goes.

    Args:
        out: Where logs and the book of finished stages are kept.
        stages: Each after those that it waits for.
        jobs: How many run at once.
        gpus: One for each of these jobs; none where they share what there is.
        until: Of `time.monotonic`, in seconds: nothing is started that would not end by then, as
            far as can be foreseen. `unfinished` tells what is left.

    Returns:
        False when a command failed: what then still ran is finished, nothing more is started.
    """
    with _only_one(out) as lock:
        return _Runner(out, stages, jobs, lock, gpus, until).run()


def unfinished(out: Path, stages: Sequence[Stage]) -> list[Stage]:
    """The stages that have not run yet, or from other inputs."""
    book = _Book(out / "stages.json")
    return [stage for stage in stages if not book.finished(stage)]


def seconds_left(out: Path, stages: Sequence[Stage], jobs: int) -> float:
    """About how long `run_stages` would take."""
    book = _Book(out / "stages.json")
    left = [book.estimate(stage) for stage in stages if not book.finished(stage)]
    return sum(left) / max(min(jobs, len(left)), 1)


def take_for_finished(out: Path, stages: Sequence[Stage]) -> None:
    """Remember stages whose results came from elsewhere."""
    book = _Book(out / "stages.json")
    for stage in stages:
        book.remember(stage, stage.words(), None)


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
        self._book = _Book(out / "stages.json")
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
                    self._look(bars)
            finally:
                for one in self._running:
                    one.child.terminate()
                for one in self._running:
                    one.child.wait()
        return not self._failed

    def _start(self, bars: Progress) -> bool:
        """Start what can be; False when there is nothing left to start."""
        for stage in list(self._waiting):
            if self._failed or len(self._running) == self._jobs:
                break
            if not self._finished.issuperset(stage.after):
                continue
            done = self._book.finished(stage)
            if not done and time.monotonic() + self._book.estimate(stage) > self._until:
                # (A shorter one may still end in time.)
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
        """Whether none of the waiting stages can be started any more."""
        return not self._running and all(
            time.monotonic() + self._book.estimate(stage) > self._until
            for stage in self._waiting
            if self._finished.issuperset(stage.after)
        )

    def _child(self, stage: Stage, words: list[str], bars: Progress) -> _Running:
        log = self._out / "logs" / f"{stage.name.replace(' ', '-')}.log"
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        # axolotl looks for accelerate on the path; this environment may not be activated.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        given = {**os.environ, **settings(self._jobs), "PATH": path, "PYTHONUNBUFFERED": "1"}
        taken = {one.gpu for one in self._running}
        gpu = next((gpu for gpu in self._gpus if gpu not in taken), None)
        if gpu is not None:
            given["CUDA_VISIBLE_DEVICES"] = str(gpu)
        with log.open("wb") as stream:
            child = subprocess.Popen(
                [program(words[0]) or words[0], *words[1:]],
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=given,
                pass_fds=(self._lock.fileno(),),
            )
        bar = bars.add_task(stage.name, total=100)
        return _Running(stage, child, log, words, time.monotonic(), bar, gpu)

    def _look(self, bars: Progress) -> None:
        for one in list(self._running):
            code = one.child.poll()
            bars.update(one.bar, completed=_share_done(one.log))
            if code is None:
                continue
            self._running.remove(one)
            bars.remove_task(one.bar)
            if code != 0 or not one.stage.done():
                self._failed = True
                _show_failure(one.stage, code, one.log)
                continue
            self._book.remember(one.stage, one.words, time.monotonic() - one.started)
            self._finished.add(one.stage.name)

    def _announce(self, stage: Stage, words: list[str]) -> None:
        left = [other for other in [stage, *self._waiting] if not self._book.finished(other)]
        left += [one.stage for one in self._running]
        seconds = sum(map(self._book.estimate, left)) / min(self._jobs, max(len(left), 1))
        remaining = f"about {_minutes(seconds)} left" if left else "nothing left to do"
        number = f"{self._stages.index(stage) + 1}/{len(self._stages)}"
        console.print(f"\n[bold]\\[{number}] {stage.name}[/bold] ({remaining})")
        console.print(
            f"  $ {shlex.join(words)}", style="cyan", highlight=False, soft_wrap=True, markup=False
        )


class _Book:
    """Which stages finished, from which inputs, and how long they took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: dict[str, dict[str, Any]] = (
            json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        )

    def finished(self, stage: Stage) -> bool:
        known: Mapping[str, Any] | None = self.stages.get(stage.name)
        return known is not None and known["inputs"] == stage.inputs and stage.done()

    def remember(self, stage: Stage, words: list[str], seconds: float | None) -> None:
        self.stages[stage.name] = {
            "inputs": stage.inputs,
            "seconds": None if seconds is None else round(seconds, 1),
            "command": shlex.join(words),
        }
        with atomic_writer(self.path) as stream:
            stream.write((json.dumps(self.stages, indent=1) + "\n").encode("utf-8"))

    def estimate(self, stage: Stage) -> float:
        """Seconds: as this machine's stages of the kind took, or a guess."""
        same = [
            known["seconds"]
            for name, known in self.stages.items()
            if name.split()[0] == stage.kind and known["seconds"] is not None
        ]
        return sum(same) / len(same) if same else stage.seconds


@contextmanager
def _only_one(out: Path) -> Iterator[IO[str]]:
    """Hold the folder's lock, which a child keeps while it lives.

    Work that was killed outright may leave a training run behind; starting a second
    one beside it would write the same folder.
    """
    with writing(out / LOCK):
        out.mkdir(parents=True, exist_ok=True)
        (out / LOCK).touch()
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"Another run still works in {out}; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _share_done(log: Path) -> float:
    """Percent done by the last progress bar that the command printed, which tells no other way."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 2000))
        shown = re.findall(rb"(\d+)%\|", stream.read())
    return float(shown[-1]) if shown else 0.0


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _show_failure(stage: Stage, code: int, log: Path) -> None:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    print(*lines[-25:], sep="\n", file=sys.stderr)
    why = f"exited with {code}" if code else "exited with 0 but left no result"
    if shutil.disk_usage(log.parent).free < _LITTLE:
        why += ", and the disk is full: free some space"
    print(f"regreason: {stage.name} {why}; its whole output: {log}", file=sys.stderr)
    print("Run the same command again to go on from here.", file=sys.stderr)
