"""Time, memory and page size of `regreason compare` on 18 settings x 8 arms x 5,000 documents.

    python tests/bench/bench_compare.py [--documents N] [--group-size N]

The results are random numbers in lm_eval's format; the time to write them is not measured. Memory
is the largest sum of the proportional set sizes of the command and all its child processes, sampled
five times per second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.results import ALL, write_results

ARMS = [
    *("label_only", "explanation", "shuffled", "bag_of_words", "mismatched", "random_words"),
    *("filler", "other"),
]
WORDS = [
    "a",
    "conversation",
    "of",
    "some",
    "length",
    "in",
    "which",
    "two",
    "people",
    "talk",
    "about",
    "this",
    "and",
    "that",
]


def write_arm(folder: Path, documents: int, group_size: int, draw: np.random.Generator) -> None:
    """Write the results of one model with random scores."""
    scores = {task: np.round(draw.normal(-2, 1, (documents, 5)), 6) for task in ALL}
    text = " ".join(WORDS * 4)
    write_results(folder, scores, group_size=group_size, texts=[text])


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and the peak memory of all its processes in MiB."""
    begin, worst = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            worst = max(worst, sum(one.memory_full_info().pss for one in family))
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - begin, worst / 2**20


def print_figures(folder: Path, arms: Sequence[str], samples: int, *flags: str) -> None:
    """Compare the arms' results, each in a folder of its name, and print the figures as JSON."""
    size = sum(file.stat().st_size for file in folder.rglob("*.json*"))
    command = [
        *(sys.executable, "-m", "regreason_plugin", "compare"),
        *(f"{arm}={folder / arm}" for arm in arms),
        *("--baseline", arms[0], "--out", str(folder / "out"), *flags),
    ]
    seconds, memory = measure(command)
    page = (folder / "out" / "report.html").stat().st_size
    figures = {
        "documents": samples,
        "samples_mib": round(size / 2**20),
        "seconds": round(seconds, 1),
        "memory_mib": round(memory),
        "page_mib": round(page / 2**20, 1),
    }
    print(json.dumps(figures))


def main() -> None:
    """Write random results, compare them, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=5_000, help="documents per setting")
    parser.add_argument("--group-size", type=int, default=1, help="documents per group")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = np.random.default_rng(0)
        for arm in ARMS:
            write_arm(folder / arm, args.documents, args.group_size, draw)
        print_figures(folder, ARMS, len(ALL) * len(ARMS) * args.documents)


if __name__ == "__main__":
    main()
