"""Part `study`: the e-SNLI study on SmolLM2, until its time is up.

The part runs studies/esnli.yml with the given base model in a new output folder. It does not use
the finished runs that the repository keeps: they were trained on another machine, so nothing would
be measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from bench.gpu.model_shapes import smollm2_folder
from bench.gpu.result import Result, SkipPart, is_out_of_memory, said_lines

ROOT = Path(__file__).parents[3]
STUDY = ROOT / "studies" / "esnli.yml"
# Seconds that the study has for its report before the part's time limit.
SPARE_SECONDS = 30


def measure(result: Result, seconds: float, smollm2: Path | None, scratch: Path) -> None:
    """Run `regreason study` with a time limit, and record its output and its finished trainings.

    Args:
        result: Receives the figures.
        seconds: The part's time limit, in seconds.
        smollm2: Folder of SmolLM2; None if there is none.
        scratch: Folder for the study.
    """
    base = smollm2_folder(smollm2)
    if not STUDY.is_file():
        raise SkipPart(f"there is no studies/{STUDY.name}")
    from helpers.axolotl import environment

    out = scratch.resolve() / "esnli"
    file = _write_study(out, base.resolve())
    minutes = max(1, int((seconds - SPARE_SECONDS) // 60))
    arguments = ["study", str(file), "--minutes", str(minutes)]
    log = result.file.with_suffix(".log")
    with (
        log.open("w", encoding="utf-8") as stream,
        subprocess.Popen(
            [sys.executable, "-m", "regreason_plugin", *arguments],
            cwd=ROOT,
            env=environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            process.wait()
        finally:
            # Terminated, not killed, so that the study ends its stages, too.
            process.terminate()
            said = log.read_text(encoding="utf-8", errors="replace")
            result.update(
                minutes=minutes,
                trainings=_finished(out),
                output=said_lines(said)[-20:],
            )
    if process.returncode == 2:
        raise SkipPart(f"`regreason study` refused to run: {said_lines(said)[-1]}")
    if is_out_of_memory(said):
        raise MemoryError("a stage of the study ran out of memory")
    if process.returncode not in (0, 3):
        raise RuntimeError(f"`regreason study` ended with exit code {process.returncode}")


def _write_study(out: Path, base: Path) -> Path:
    values = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    values |= {"out": str(out), "base": str(base)}
    values.pop("kept", None)
    out.mkdir(parents=True, exist_ok=True)
    file = out.with_suffix(".yml")
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return file


def _finished(out: Path) -> list[dict[str, float | str]]:
    """The finished trainings, with their names and seconds."""
    found: list[dict[str, float | str]] = []
    for file in sorted(out.rglob("regreason.json")):
        cost = json.loads(file.read_text(encoding="utf-8"))["cost"]
        name = str(file.parent.relative_to(out))
        found.append({"name": name, "seconds": cost["seconds"]})
    return found
