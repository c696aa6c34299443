"""`axolotl train` many times over from one process that has imported everything once.

    python many_trainings.py JOBS.json

A job is ``{"cwd": FOLDER, "log": FILE, "arguments": [...]}``: what would stand after ``axolotl``.
Each runs in a fork of its own, as a fresh command would, without the seconds of its imports.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    # What `axolotl train` imports, up to the trainer; nothing here may compute, or start a thread.
    import axolotl.cli.main
    import axolotl.cli.train
    import axolotl.core.builders
    import axolotl.train

    import regreason_plugin.training.plugin
    import regreason_plugin.training.strategy  # noqa: F401

    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for job in jobs:
        child = os.fork()
        if child == 0:
            run(axolotl.cli.main.cli, job)
        os.waitpid(child, 0)


def run(cli: object, job: dict[str, object]) -> None:
    """In the child: the command, its output in the log, its exit code beside it."""
    os.chdir(str(job["cwd"]))
    log = Path(str(job["log"]))
    with log.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    code = 0
    try:
        cli(job["arguments"], standalone_mode=False)  # type: ignore[operator]
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    log.with_suffix(".code").write_text(str(code))
    os._exit(code)


if __name__ == "__main__":
    main()
