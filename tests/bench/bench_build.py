"""Speed and memory of `regreason build` at the paper's size: 45,000 ratings and seven arms.

Prints rows per second and the peak memory, at a fifth of the size and at the full size. The first
pass keeps only an index in memory, so memory must not grow with the texts.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from regreason_plugin.data_folder.build import build
from regreason_plugin.data_folder.mini import write_mini_ratings

SIZES = (500, 2500)  # conversations per dataset; there are 6 datasets and 3 axes


def measure(ratings: Path, out: Path) -> dict[str, float]:
    """Build once, in this process.

    Returns:
        Rows, seconds, peak memory, and memory before the build, both in MiB.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    folder = build(ratings, out)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = sum(count.rows for count in folder.manifest.counts.values())
    return {"rows": rows, "seconds": seconds, "peak": peak / 1024, "before": before / 1024}


def main() -> None:
    """Measure each size in a new process, because a process's peak memory never falls."""
    if len(sys.argv) == 3:
        print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]))))
        return
    print(
        f"{'ratings':>8} {'arms':>5} {'seconds':>8} {'rows/s':>8} {'peak MiB':>9} {'file MiB':>9}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for size in SIZES:
            ratings = Path(scratch) / f"ratings-{size}.jsonl"
            write_mini_ratings(ratings, 0, size)
            command = [sys.executable, __file__, str(ratings), f"{scratch}/data-{size}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{found['rows']:>8.0f} {7:>5} {found['seconds']:>8.1f} "
                f"{found['rows'] / found['seconds']:>8.0f} {found['peak']:>9.0f} "
                f"{ratings.stat().st_size / 2**20:>9.0f}"
            )


if __name__ == "__main__":
    main()
