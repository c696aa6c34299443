"""A training like in a worker of Ray Train, without Ray."""

from __future__ import annotations

import json
import sys


def train() -> None:
    """Do what Axolotl does in the process that starts Ray, and then in a worker, a new process.

    The command line has a config file, which is loaded as in the starting process, and further keys
    of the config as JSON.
    """
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.cli.train import ray_train_func
    from axolotl.integrations.base import PluginManager

    config, keys = sys.argv[1:]
    handed_over = load_cfg(config, use_ray=True, **json.loads(keys)).to_dict()
    PluginManager.get_instance().plugins.clear()
    ray_train_func({"cfg": handed_over, "cli_args": TrainerCliArgs()})
