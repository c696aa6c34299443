"""The functions that the task files in this folder call. lm-eval 0.4.11 looks only here."""

from regreason_plugin.evaluate.task_functions import *  # noqa: F403
