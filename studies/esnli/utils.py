"""What the task files here call. lm-eval 0.4.11 looks for it in this folder only."""

from regreason_plugin.evaluate.task_functions import *  # noqa: F403
