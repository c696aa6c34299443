"""Part `study`: the e-SNLI study on SmolLM2, as far as its time goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import time

from bench.gpu.model_shapes import smollm2_folder
from bench.gpu.result import Result, SkipPart, first_line, is_out_of_memory

ROOT = Path(__file__).parents[3]
STUDY = ROOT / "studies" / "esnli.yml"
# What is left for the study to write its report before the part's own limit.
SPARE_SECONDS = 30


def measure(result: Result, seconds: float, smollm2: Path | None) -> None:
    """Run `regreason study` with a time limit of its own, and keep what it said and finished.

    Args:
        result: Where the figures go.
        seconds: The part's time limit.
        smollm2: The folder of the base, which the study names by itself.
    """
    smollm2_folder(smollm2)
    if not STUDY.is_file():
        raise SkipPart(f"there is no {STUDY.relative_to(ROOT)}")
    from helpers.axolotl import environment

    minutes = max(1, int((seconds - SPARE_SECONDS) // 60))
    arguments = ["study", str(STUDY.relative_to(ROOT)), "--minutes", str(minutes)]
    started = time()
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
            # (Its stages end with it, which a kill would not let it see to.)
            process.terminate()
            said = log.read_text(encoding="utf-8", errors="replace")
            result.update(
                command=" ".join(["regreason", *arguments]),
                trainings=_finished(started),
                output=[line.rstrip() for line in said.splitlines() if line.strip()][-20:],
            )
    if process.returncode == 2:
        raise SkipPart(f"`regreason study` refuses: {first_line(said)}")
    if is_out_of_memory(said):
        raise MemoryError("a stage of the study ran out of memory")
    if process.returncode not in (0, 3):
        raise RuntimeError(f"`regreason study` ended with exit code {process.returncode}")


def _finished(since: float) -> list[dict[str, float | str]]:
    """The trainings that have ended since then, with their seconds."""
    found = []
    for file in sorted((ROOT / "runs").rglob("regreason.json")):
        if file.stat().st_mtime >= since:
            cost = json.loads(file.read_text(encoding="utf-8")).get("cost") or {}
            found.append({"name": file.parent.name, "seconds": cost.get("seconds", 0.0)})
    return found
