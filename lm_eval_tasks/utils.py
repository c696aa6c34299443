"""The functions that task files name. lm-eval 0.4.11 looks for this module in this folder only."""

from regreason_plugin.evaluate.task_functions import *  # noqa: F403
