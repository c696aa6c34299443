"""`axolotl train` many times over from one process that has imported everything once.

    python many_trainings.py JOBS.json

A job is ``{"cwd": FOLDER, "log": FILE, "arguments": [...]}``: what would stand after ``axolotl``.
Each runs in a fork of its own, as a fresh command would, without the seconds of its imports.
With ``"ray": {KEY: VALUE}`` it runs as in a worker of Ray Train, which itself is not needed: the
arguments are the config, which is loaded as where Ray is started, with these keys.
"""

from __future__ import annotations

import gc
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
    import deepspeed  # noqa: F401
    import multiprocess

    import regreason_plugin.train.plugin
    import regreason_plugin.train.strategy  # noqa: F401

    # `datasets` saves in a fresh process, which would import everything once more; a fork need not.
    fork = multiprocess.get_context("fork")
    multiprocess.get_context = lambda method=None: fork
    # Axolotl collects garbage five times a training; what stands here by now never is.
    gc.freeze()
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
        if "ray" in job:
            run_as_ray_does(*job["arguments"], job["ray"])  # type: ignore[misc]
        else:
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


def run_as_ray_does(config: str, keys: dict[str, object]) -> None:
    """What Axolotl does in the process that starts Ray, and then in a worker, which is fresh."""
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.cli.train import ray_train_func
    from axolotl.integrations.base import PluginManager

    handed_over = load_cfg(config, use_ray=True, **keys).to_dict()
    PluginManager.get_instance().plugins.clear()
    ray_train_func({"cfg": handed_over, "cli_args": TrainerCliArgs()})


if __name__ == "__main__":
    main()
