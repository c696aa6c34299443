"""Estimates the time and memory of a study from a few training steps and scored documents.

The measurement runs the study's own commands, so it includes loading, tokenizing and the speed of
this machine. ``measured.json`` keeps the result, so that it is measured only once.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from regreason_plugin.core.available_memory import available_memory
from regreason_plugin.core.cost import SCORING
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import RECORD
from regreason_plugin.core.prompt import Order
from regreason_plugin.core.stages import Stage, console, hash_of, run_stages
from regreason_plugin.core.training_curves import read_log
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.core.yaml_file import dump_yaml
from regreason_plugin.study.plan import Plan, Seconds, base_hash
from regreason_plugin.study.study_file import AxolotlKeys, StudyFile

_STEPS, _DOCUMENTS = 5, 16
# Time of a validation row (forward pass) relative to a training row (forward and backward pass).
_FORWARD = 0.35
# Memory that the study leaves to other programs.
_SPARE_GIB = 0.5
_LABEL, _MINUTES = "measure", 60


@dataclass(frozen=True)
class Measured:
    """Measured time and memory of a few training steps and scored documents.

    Attributes:
        inputs: Hash of the measured model and config.
        starting: Seconds of a training before its first and after its last step.
        step: Seconds per optimizer step.
        loading: Seconds of a scoring besides its documents, such as those for loading.
        document: Seconds per scored document.
        peak_gib: Peak main memory of the training, in GiB.
    """

    inputs: str
    starting: float
    step: float
    loading: float
    document: float
    peak_gib: float


def measure(plan: Plan, jobs: int) -> Measured:
    """Train a few steps of a condition with long targets, and score a few documents.

    Args:
        plan: The plan of the study.
        jobs: Number of parallel stages of the study; the measurement gets the threads of one.

    Raises:
        UserError: A command failed; its own output, printed before, says why.
    """
    study, folder = plan.study, plan.out / _LABEL
    condition = study.conditions[-1]
    for one in study.conditions:
        if one.order == "label_first" and one.arm not in ("label_only", "filler"):
            condition = one
            break
    keys = plan.config(condition, _first_candidate(study), study.seeds[0], folder / "model")
    # A few steps, all of them logged, without evaluations.
    keys |= {"regreason_budget": "steps", "max_steps": _STEPS, "logging_steps": 1}
    left_out = ("eval_strategy", "eval_steps", "regreason_target_tokens", "warmup_ratio")
    keys = {key: value for key, value in keys.items() if key not in left_out}
    inputs = hash_of(base_hash(study.base), json.dumps(keys, sort_keys=True))
    if (known := _read(plan)) is not None and known.inputs == inputs:
        return known
    config = folder / "config.yml"
    with atomic_writer(config) as stream:
        stream.write(dump_yaml(keys).encode())
    train = Stage(
        f"{_LABEL} training",
        ["axolotl", "train", str(config), "--launcher", "python"],
        inputs,
        (folder / "model" / RECORD).is_file,
        clears=folder / "model",
    )
    score = Stage(
        f"{_LABEL} scoring",
        plan.scoring(condition, folder / "model", "test", folder / "results", _DOCUMENTS),
        inputs,
        lambda: any((folder / "results").rglob("results_*.json")),
        clears=folder / "results",
    )
    walls = []
    for stage in (train, score):
        began = time.monotonic()
        if not run_stages(folder, [stage], jobs):
            raise UserError(f"the measurement failed; {folder / 'logs'} holds its whole output")
        walls.append(time.monotonic() - began)
    measured = _measured(inputs, folder, walls)
    # (The study needs neither; only the logs are kept.)
    for name in ("model", "results"):
        shutil.rmtree(folder / name, ignore_errors=True)
    with atomic_writer(plan.out / "measured.json") as stream:
        stream.write(json.dumps(asdict(measured), indent=1).encode() + b"\n")
    return measured


def _first_candidate(study: StudyFile) -> AxolotlKeys:
    return study.choose.candidates()[0] if study.choose else {}


def _read(plan: Plan) -> Measured | None:
    file = plan.out / "measured.json"
    return Measured(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _measured(inputs: str, folder: Path, walls: list[float]) -> Measured:
    record = json.loads((folder / "model" / RECORD).read_text(encoding="utf-8"))
    cost = record["cost"]
    (results,) = (folder / "results").rglob("results_*.json")
    scored = json.loads(results.read_text(encoding="utf-8"))["config"][SCORING]
    return Measured(
        inputs=inputs,
        starting=max(walls[0] - cost["seconds"], 0.0),
        step=_step_seconds(folder / "model"),
        loading=max(walls[1] - scored["seconds"], 0.0),
        document=scored["seconds"] / scored["documents"],
        peak_gib=cost["peak_memory_mib"] / 1024,
    )


def _step_seconds(model: Path) -> float:
    """Seconds per optimizer step, without the first step, which also loads code and data."""
    times: list[float] = [line["seconds"] for line in read_log(model) if "loss" in line]
    return statistics.fmean(later - earlier for earlier, later in pairwise(times))


def seconds_of(plan: Plan, measured: Measured) -> Seconds:
    """The expected seconds of each stage; the data folders must exist."""
    rows = {order: plan.open_data(order).manifest.counts for order in plan.study.orders}

    def train(keys: AxolotlKeys, order: Order) -> float:
        batch: int = keys.get("micro_batch_size", 1) * keys.get("gradient_accumulation_steps", 1)
        epochs = float(keys.get("num_epochs") or 1)
        steps: float = (
            keys.get("max_steps") or math.ceil(rows[order]["train"].rows / batch) * epochs
        )
        row = _FORWARD * measured.step / batch
        return (
            measured.starting
            + steps * measured.step
            + _evaluations(keys, steps, epochs) * rows[order]["validation"].rows * row
        )

    def score(documents: int, order: Order) -> float:
        # A model that explains first generates tens of tokens one by one, so it takes longer.
        return measured.loading + documents * measured.document * (5 if order[0] == "e" else 1)

    return Seconds(train, score)


def _evaluations(keys: AxolotlKeys, steps: float, epochs: float) -> float:
    every = keys.get("eval_steps") or 0
    if keys.get("eval_strategy") == "epoch":
        return 1 + epochs
    if keys.get("eval_strategy") != "steps" or not every:
        return 0
    return 1 + (1 / every if every < 1 else steps / every)


def jobs_that_fit(study: StudyFile, measured: Measured, wanted: int, *, asked: bool) -> int:
    """The number of parallel trainings that fit into memory, at most ``wanted``.

    Args:
        study: The study, which may limit the memory.
        measured: The measurement, with the peak memory of a training.
        wanted: The wanted number of parallel trainings.
        asked: Whether the command line sets this number, so that fewer are an error.

    Raises:
        UserError: Memory is too small for one training, or for the number that the command line
            sets.
    """
    free = available_memory()
    room = study.limits.memory_gib or (math.inf if free is None else free / 2**30 - _SPARE_GIB)
    fitting = room / measured.peak_gib
    limit = (
        f"limits.memory_gib allows only {room:.1f} GiB"
        if study.limits.memory_gib
        else f"only {room:.1f} GiB are free"
    )
    if fitting < 1:
        raise UserError(
            f"a training takes about {measured.peak_gib:.1f} GiB of memory, but {limit}; use a "
            "smaller micro_batch_size or base, or another machine"
        )
    if asked and fitting < wanted:
        raise UserError(
            f"--jobs {wanted}: {wanted} trainings in parallel take about "
            f"{wanted * measured.peak_gib:.1f} GiB of memory, but {limit}; use at most "
            f"--jobs {int(fitting)}"
        )
    return int(min(fitting, wanted))


def show_estimate(measured: Measured, jobs: int, left: float, minutes: float | None) -> None:
    """Print the measurement and the expected time of the study."""
    console.print(
        f"Measured on this machine: {measured.step:.1f} s per step, {measured.document:.2f} s per "
        f"scored text, {measured.peak_gib:.1f} GiB of memory per training; {jobs} in parallel.\n"
        f"The remaining stages take about {_duration(left)}.",
        highlight=False,
    )
    if minutes is not None and left > minutes * _MINUTES:
        console.print(
            f"That is more than the limit of {minutes:g} minutes: the study stops before the "
            "first stage that would not end in time, and the same command continues from there.",
            highlight=False,
        )


def _duration(seconds: float) -> str:
    minutes = seconds / _MINUTES
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
