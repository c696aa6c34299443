"""Time that lm_eval takes to list and load the eighteen tasks, relative to its own start.

The printed ratios are relative to `lm_eval` importing and indexing its own tasks in the same run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASKS = Path(__file__).parents[2] / "lm_eval_tasks"
LOAD = """
from lm_eval.tasks import TaskManager
import sys
manager = TaskManager(include_path=sys.argv[1], include_defaults=sys.argv[2] == "all")
names = [name for name in manager.all_subtasks if name.startswith(sys.argv[3])]
(manager.load_task_or_group if hasattr(manager, "load_task_or_group") else manager.load)(names)
"""
RUNS = {
    "import lm_eval": ["-c", "import lm_eval.tasks"],
    "lm_eval's own tasks": ["-c", LOAD, str(TASKS), "all", "nothing-"],
    "and our 18 loaded": ["-c", LOAD, str(TASKS), "all", "regreason_"],
    "only our 18 loaded": ["-c", LOAD, str(TASKS), "ours", "regreason_"],
}


def main() -> None:
    """Time each start three times, in turns, with a mini benchmark that is already built."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        mini = "from regreason_plugin.data_folder.mini import build_mini; from pathlib import Path"
        subprocess.run(
            [sys.executable, "-c", f"{mini}; build_mini(Path({str(data)!r}))"], check=True
        )
        environment = {**os.environ, "REGREASON_DATA": str(data), "HF_HUB_OFFLINE": "1"}
        seconds: dict[str, list[float]] = {name: [] for name in RUNS}
        for _ in range(3):
            for name, arguments in RUNS.items():
                started = time.perf_counter()
                subprocess.run(
                    [sys.executable, *arguments], check=True, capture_output=True, env=environment
                )
                seconds[name].append(time.perf_counter() - started)
    yardstick = statistics.median(seconds["lm_eval's own tasks"])
    print(f"{'start':<22} {'median s':>9} {'ratio':>6}")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:<22} {median:>9.2f} {median / yardstick:>6.2f}")


if __name__ == "__main__":
    main()
