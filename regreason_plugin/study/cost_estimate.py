"""What a study takes on this machine, from a few real steps of training and a few documents.

Both are measured by the commands that the study runs, so loading, tokenizing and the machine's
own speed are in it. What is measured once is kept in ``measured.json``.
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
# A validation row is read once, forwards; a training row is read forwards and backwards.
_FORWARD = 0.35
# Memory that is left to the rest of the machine.
_SPARE_GIB = 0.5
_LABEL, _MINUTES = "measure", 60


@dataclass(frozen=True)
class Measured:
    """What a few steps and documents took.

    Attributes:
        inputs: Hash of the model and the config that were measured.
        starting: Seconds until the first step, and after the last one.
        step: Seconds of an optimizer step.
        loading: Seconds until the first document is scored.
        document: Seconds of a document.
        peak_gib: Main memory of the training, at most.
    """

    inputs: str
    starting: float
    step: float
    loading: float
    document: float
    peak_gib: float


def measure(plan: Plan, jobs: int) -> Measured:
    """Train a few steps of a condition with long rows, and score a few documents.

    Args:
        plan: The study.
        jobs: How many stages may run at once: what is measured has the threads of one of them.

    Raises:
        UserError: A command failed; it has been said why.
    """
    study, place = plan.study, plan.out / _LABEL
    condition = study.conditions[-1]
    for one in study.conditions:
        if one.order == "label_first" and one.arm not in ("label_only", "filler"):
            condition = one
            break
    keys = plan.config(condition, _first_candidate(study), study.seeds[0], place / "model")
    # Steps, each of them logged, and no evaluation on the way.
    keys |= {"regreason_budget": "steps", "max_steps": _STEPS, "logging_steps": 1}
    left_out = ("eval_strategy", "eval_steps", "regreason_target_tokens", "warmup_ratio")
    keys = {key: value for key, value in keys.items() if key not in left_out}
    inputs = hash_of(base_hash(study.base), json.dumps(keys, sort_keys=True))
    if (known := _read(plan)) is not None and known.inputs == inputs:
        return known
    config = place / "config.yml"
    with atomic_writer(config) as stream:
        stream.write(dump_yaml(keys).encode())
    train = Stage(
        f"{_LABEL} training",
        ["axolotl", "train", str(config), "--launcher", "python"],
        inputs,
        (place / "model" / RECORD).is_file,
        clears=place / "model",
    )
    score = Stage(
        f"{_LABEL} scoring",
        plan.scoring(condition, place / "model", "test", place / "results", _DOCUMENTS),
        inputs,
        lambda: any((place / "results").rglob("results_*.json")),
        clears=place / "results",
    )
    walls = []
    for stage in (train, score):
        began = time.monotonic()
        if not run_stages(place, [stage], jobs):
            raise UserError(f"the measurement failed; its whole output is in {place / 'logs'}")
        walls.append(time.monotonic() - began)
    measured = _measured(inputs, place, walls)
    # (Neither is of any use; only the logs are kept.)
    for name in ("model", "results"):
        shutil.rmtree(place / name, ignore_errors=True)
    with atomic_writer(plan.out / "measured.json") as stream:
        stream.write(json.dumps(asdict(measured), indent=1).encode() + b"\n")
    return measured


def _first_candidate(study: StudyFile) -> AxolotlKeys:
    return study.choose.candidates()[0] if study.choose else {}


def _read(plan: Plan) -> Measured | None:
    file = plan.out / "measured.json"
    return Measured(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _measured(inputs: str, place: Path, walls: list[float]) -> Measured:
    record = json.loads((place / "model" / RECORD).read_text(encoding="utf-8"))
    cost = record["cost"]
    (results,) = (place / "results").rglob("results_*.json")
    scored = json.loads(results.read_text(encoding="utf-8"))["config"][SCORING]
    return Measured(
        inputs=inputs,
        starting=max(walls[0] - cost["seconds"], 0.0),
        step=_step_seconds(place / "model"),
        loading=max(walls[1] - scored["seconds"], 0.0),
        document=scored["seconds"] / scored["documents"],
        peak_gib=cost["peak_memory_mib"] / 1024,
    )


def _step_seconds(model: Path) -> float:
    """Of one optimizer step, without the first ones, which load what the others find loaded."""
    times: list[float] = [line["seconds"] for line in read_log(model) if "loss" in line]
    return statistics.fmean(later - earlier for earlier, later in pairwise(times))


def seconds_of(plan: Plan, measured: Measured) -> Seconds:
    """What each stage takes; the data must be there."""
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
        # A model that explains first writes tens of tokens one by one.
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
    """How many of the stages that are wanted at once the memory allows.

    Args:
        study: The study.
        measured: What a training takes.
        wanted: At once.
        asked: Whether the command line asks for so many; then fewer are a mistake.

    Raises:
        UserError: The machine has not the memory, for one or for so many as were asked for.
    """
    free = available_memory()
    room = study.limits.memory_gib or (math.inf if free is None else free / 2**30 - _SPARE_GIB)
    fitting = room / measured.peak_gib
    where = "limits.memory_gib allows" if study.limits.memory_gib else "are free"
    if fitting < 1:
        raise UserError(
            f"a training takes about {measured.peak_gib:.1f} GiB of memory, and {room:.1f} GiB "
            f"{where}; use a smaller micro_batch_size or base, or another machine"
        )
    if asked and fitting < wanted:
        raise UserError(
            f"--jobs {wanted} trainings at once take about {wanted * measured.peak_gib:.1f} GiB of "
            f"memory, and {room:.1f} GiB {where}; name at most --jobs {int(fitting)}"
        )
    return int(min(fitting, wanted))


def show_estimate(measured: Measured, jobs: int, left: float, minutes: float | None) -> None:
    """Say what the study will take, before it starts."""
    console.print(
        f"Measured here: {measured.step:.1f} s a step, {measured.document:.2f} s a scored text, "
        f"{measured.peak_gib:.1f} GiB of memory a training; {jobs} at once.\n"
        f"All that is left takes about {_duration(left)}.",
        highlight=False,
    )
    if minutes is not None and left > minutes * _MINUTES:
        console.print(
            f"That is more than the {minutes:g} minutes that it may take: it stops before the "
            "first stage that would not end in time, and the same command goes on from there.",
            highlight=False,
        )


def _duration(seconds: float) -> str:
    minutes = seconds / _MINUTES
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
