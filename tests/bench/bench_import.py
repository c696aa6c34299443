"""Speed and memory of `regreason import` on 10,000 and 100,000 HH-RLHF pairs.

The pairs of the real file are repeated; a number after each first question makes them different.
Prints pairs per second and the peak memory. Memory must not grow with the texts: the import holds
one row of the stream, the hashes that recognise duplicates, and the rows of a sample.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from regreason_plugin.data.importing import import_dataset, open_source

SIZES = (10_000, 100_000)
WAYS: dict[str, dict[str, int]] = {"all": {}, "sample of 1,000": {"limit": 1000, "seed": 0}}
# The same folder as for the tests; see CONTRIBUTING.
DATA = Path(os.environ.get("REGREASON_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = DATA / "hh-rlhf" / "helpful-base-test.jsonl.gz"


def write_pairs(path: Path, count: int) -> None:
    """Write the real pairs, repeated until there are ``count``, each with its number."""
    with gzip.open(REAL, "rt", encoding="utf-8") as stream:
        pairs = [json.loads(line) for line in stream]
    with path.open("w", encoding="utf-8") as stream:
        for number, pair in enumerate(islice(cycle(pairs), count)):
            varied = {
                side: text.replace("\n\nHuman:", f"\n\nHuman: ({number})", 1)
                for side, text in pair.items()
            }
            stream.write(json.dumps(varied) + "\n")


def measure(pairs: Path, out: Path, way: str) -> dict[str, float]:
    """Import once, in this process.

    Returns:
        Seconds, seconds of CPU time (``core``), conversations written, peak memory in MiB, and the
        peak above the memory before the import.
    """
    before = _peak()
    started, worked = time.perf_counter(), time.process_time()
    done = import_dataset("hh_chosen", open_source("hh_chosen", path=pairs), out, **WAYS[way])
    seconds, core = time.perf_counter() - started, time.process_time() - worked
    peak = _peak()
    return {
        "seconds": seconds,
        "core": core,
        "written": done.conversations,
        "peak": peak,
        "above": peak - before,
    }


def _peak() -> float:
    """Peak memory of this process in MiB; ``ru_maxrss`` would include the parent's peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Measure each size in a new process, because a process's peak memory never falls."""
    if len(sys.argv) == 4:
        print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
        return
    print(
        "| pairs | file, MiB | way | written | seconds | CPU seconds | pairs/s "
        "| peak MiB | above the start |"
    )
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        for size in SIZES:
            pairs = Path(scratch) / f"pairs-{size}.jsonl"
            write_pairs(pairs, size)
            for way in WAYS:
                command = [sys.executable, __file__, str(pairs), f"{scratch}/out.jsonl", way]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"| {size} | {pairs.stat().st_size / 2**20:.0f} | {way} "
                    f"| {found['written']} | {found['seconds']:.1f} | {found['core']:.1f} "
                    f"| {size / found['seconds']:.0f} | {found['peak']:.0f} "
                    f"| {found['above']:.0f} |"
                )


if __name__ == "__main__":
    main()
