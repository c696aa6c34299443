"""`regreason demo`: the whole way on the mini benchmark, each station by its own command.

A stage that finished is remembered with the hash of everything it was made from, so a
demo that was killed goes on where it stopped, and one whose configs changed does not
show old numbers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from regreason_plugin.errors import UserError
from regreason_plugin.jsonl import atomic_writer
from regreason_plugin.targets.folder import file_sha256

CONFIGS = Path("axolotl_configs")
TASKS = Path("lm_eval_tasks")
LORA = CONFIGS / "cpu" / "lora.yml"
BASE = CONFIGS / "cpu" / "tiny-base"
# The folder that the shipped config names; another --out gets a copy of it.
SHIPPED_OUT = "runs/demo"

# Rough seconds of a stage on two cores, until this machine has run one itself.
GUESSES = {"data": 15.0, "train": 140.0, "eval": 45.0, "compare": 5.0, "plot": 10.0}

console = Console()


@dataclass(frozen=True)
class Stage:
    """One command, what it is made from and how to tell that it is done.

    Attributes:
        name: Such as ``train explanation``; its first word is its kind.
        command: What is run, and printed.
        inputs: A hash of everything the result depends on.
        done: A file that is there when the stage has finished.
        clears: A folder of half-finished work to remove before it starts.
    """

    name: str
    command: list[str]
    inputs: str
    done: Callable[[], bool]
    clears: Path | None = None

    @property
    def kind(self) -> str:
        """``data``, ``train``, ``eval``, ``compare`` or ``plot``."""
        return self.name.split()[0]


def run_demo(out: Path, arms: tuple[str, ...], seed: int = 0) -> int:
    """Run or finish the demo.

    Args:
        out: Everything is written below it.
        arms: Which arms to train; ``label_only`` is what they are compared with.
        seed: Of the data and of the training.

    Returns:
        0, or 1 when a command failed.

    Raises:
        UserError: Not in a checkout, or Axolotl is not installed.
    """
    _check_surroundings(arms)
    out.mkdir(parents=True, exist_ok=True)
    with _only_one(out) as lock:
        book = _Book(out / "stages.json")
        stages = _stages(out, arms, seed)
        shown = " ".join(f"{name}={value}" for name, value in _settings().items())
        console.print(f"  $ export {shown}", style="cyan", highlight=False, soft_wrap=True)
        for number, stage in enumerate(stages, start=1):
            _announce(number, stages, stage, book)
            if book.finished(stage):
                console.print("  done before", style="dim")
                continue
            if stage.clears:
                shutil.rmtree(stage.clears, ignore_errors=True)
            started = time.monotonic()
            log = out / "logs" / f"{stage.name.replace(' ', '-')}.log"
            code = _run(stage, log, lock)
            if code != 0 or not stage.done():
                _show_failure(stage, code, log)
                return 1
            book.remember(stage, time.monotonic() - started)
        _show_result(out, arms)
    return 0


def _check_surroundings(arms: tuple[str, ...]) -> None:
    if not (LORA.is_file() and TASKS.is_dir()):
        raise UserError(
            "the demo runs in a checkout of RegReason: change into the folder that holds "
            f"{CONFIGS}/ and {TASKS}/"
        )
    for program in ("axolotl", "lm_eval"):
        if _program(program) is None:
            raise UserError(f"{program} is not installed here; `make setup` installs it")
    if "label_only" not in arms or len(arms) < 2:
        raise UserError("--arms needs label_only, the baseline, and at least one other arm")


def _program(name: str) -> str | None:
    # Beside this interpreter first: the virtual environment may not be activated.
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


# --- stages -----------------------------------------------------------------------------


def _stages(out: Path, arms: tuple[str, ...], seed: int) -> list[Stage]:
    from regreason_plugin.targets.mini import mini_fingerprint

    data = out / "data"
    config = _config_for(out)
    made_from = _hash(mini_fingerprint(), str(seed))
    stages = [
        Stage(
            "data",
            ["regreason", "mini", "--out", str(data), "--seed", str(seed)],
            made_from,
            (data / "manifest.json").is_file,
        )
    ]
    base = sorted(path for path in BASE.iterdir() if path.is_file())
    trained_from = _hash(made_from, *map(file_sha256, [config, *base]))
    tasks = _hash(*(file_sha256(path) for path in sorted(TASKS.rglob("*.*")) if path.is_file()))
    for arm in arms:
        model = out / "models" / arm
        sweep = CONFIGS / "arms" / f"{arm}.yml"
        train = ["axolotl", "train", str(config), "--sweep", str(sweep), "--seed", str(seed)]
        trained = _hash(trained_from, arm, file_sha256(sweep))
        stages.append(
            Stage(f"train {arm}", train, trained, (model / "regreason.json").is_file, model)
        )
    for arm in arms:
        results = out / "results" / arm
        stages.append(
            Stage(
                f"eval {arm}",
                _eval(out / "models" / arm, data, results),
                _hash(trained_from, arm, tasks),
                lambda results=results: any(results.rglob("results_*.json")),  # type: ignore[misc]
                results,
            )
        )
    runs = [f"{arm}={out / 'results' / arm}" for arm in arms]
    compare = ["regreason", "compare", *runs, "--baseline", "label_only", "--out", str(out)]
    stages.append(
        Stage(
            "compare",
            compare,
            _hash(*(stage.inputs for stage in stages)),
            (out / "comparison.json").is_file,
        )
    )
    plot = ["regreason", "probe-plot", *runs, "--out", str(out)]
    stages.append(Stage("plot", plot, stages[-1].inputs, (out / "probes.csv").is_file))
    return stages


def _eval(model: Path, data: Path, results: Path) -> list[str]:
    # lm_eval's own flags; `lm_eval --model hf` without `probe` gives the same figures.
    arguments = f"pretrained={BASE},peft={model},dtype=float32,probe=all"
    return [
        *("regreason", "eval", "--model", "regreason-hf", "--model_args", arguments),
        *("--tasks", "regreason_*", "--metadata", json.dumps({"data_dir": str(data)})),
        *("--batch_size", "auto", "--device", "cpu"),
        *("--log_samples", "--output_path", str(results)),
    ]


def _config_for(out: Path) -> Path:
    if out == Path(SHIPPED_OUT):
        return LORA
    config = out / LORA.name
    text = LORA.read_text(encoding="utf-8").replace(SHIPPED_OUT, str(out))
    with atomic_writer(config) as stream:
        stream.write(text.encode("utf-8"))
    return config


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class _Book:
    """Which stages finished, from which inputs, and how long they took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: dict[str, dict[str, Any]] = (
            json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        )

    def finished(self, stage: Stage) -> bool:
        known = self.stages.get(stage.name)
        return known is not None and known["inputs"] == stage.inputs and stage.done()

    def remember(self, stage: Stage, seconds: float) -> None:
        self.stages[stage.name] = {
            "inputs": stage.inputs,
            "seconds": round(seconds, 1),
            "command": shlex.join(stage.command),
        }
        with atomic_writer(self.path) as stream:
            stream.write((json.dumps(self.stages, indent=1) + "\n").encode("utf-8"))

    def estimate(self, stage: Stage) -> float:
        """Seconds: as this machine's last stage of the kind, or a guess."""
        same = [
            known["seconds"] for name, known in self.stages.items() if name.split()[0] == stage.kind
        ]
        return float(same[-1]) if same else GUESSES[stage.kind]


# --- running ----------------------------------------------------------------------------


@contextmanager
def _only_one(out: Path) -> Iterator[IO[str]]:
    """Hold the folder's lock, which a child keeps while it lives.

    A demo that was killed outright may leave a training run behind; starting a second
    one beside it would write the same folder.
    """
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"Another demo still works in {out}; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _run(stage: Stage, log: Path, lock: IO[str]) -> int:
    """Run a stage's command, its output in a log, its own progress on the screen."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # axolotl looks for accelerate on the path; this environment may not be activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, **_settings(), "PATH": path, "PYTHONUNBUFFERED": "1"}
    program = _program(stage.command[0]) or stage.command[0]
    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with log.open("wb") as stream, Progress(*columns, console=console, transient=True) as bar:
        child = subprocess.Popen(
            [program, *stage.command[1:]],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=(lock.fileno(),),
        )
        task = bar.add_task(stage.name, total=100)
        try:
            while child.poll() is None:
                bar.update(task, completed=_share_done(log))
                time.sleep(0.5)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    return child.returncode


def _settings() -> dict[str, str]:
    """Environment variables that a reader has to set to get what the demo gets."""
    return {
        # Axolotl's telemetry calls out, and hangs where there is no network.
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        # accelerate gives a process one thread unless it is told otherwise; more than four
        # gain nothing with a model this small.
        "OMP_NUM_THREADS": str(min(os.cpu_count() or 1, 4)),
    }


def _share_done(log: Path) -> float:
    """Percent done by the last progress bar that the command printed."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 2000))
        shown = re.findall(rb"(\d+)%\|", stream.read())
    return float(shown[-1]) if shown else 0.0


# --- what is printed ----------------------------------------------------------------------


def _announce(number: int, stages: list[Stage], stage: Stage, book: _Book) -> None:
    left = sum(book.estimate(later) for later in stages[number - 1 :] if not book.finished(later))
    remaining = f"about {_minutes(left)} left" if left else "nothing left to do"
    console.print(f"\n[bold]\\[{number}/{len(stages)}] {stage.name}[/bold] ({remaining})")
    console.print(f"  $ {shlex.join(stage.command)}", style="cyan", highlight=False, soft_wrap=True)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _show_failure(stage: Stage, code: int, log: Path) -> None:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    print(*lines[-25:], sep="\n", file=sys.stderr)
    why = f"exited with {code}" if code else "exited with 0 but left no result"
    print(f"regreason: {stage.name} {why}; its whole output: {log}", file=sys.stderr)
    print("Run the demo again to go on from here.", file=sys.stderr)


def _show_result(out: Path, arms: tuple[str, ...]) -> None:
    from regreason_plugin.report.compare import print_table

    comparison = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    console.print()
    print_table(comparison)
    places = {
        "table": out / "comparison.md",
        "numbers": out / "comparison.json",
        "entropies": out / "probes.png",
        "data": out / "data",
        "adapters": out / "models",
        "lm_eval results": out / "results",
        "logs": out / "logs",
    }
    for what, place in places.items():
        console.print(f"  {what:<16} {place}", highlight=False)
    console.print(
        f"\nOne seed, {len(arms)} arms, a 1M-weight model on generated text: differences this "
        "small a study makes say little about a 7B model. Next: the README's steps by hand, "
        "on your own text and base model.",
        highlight=False,
    )
