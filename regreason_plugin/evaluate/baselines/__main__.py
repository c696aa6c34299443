"""``python -m regreason_plugin.evaluate.baselines``: one method in a process of its own."""

from regreason_plugin.core.errors import stop_on_user_error
from regreason_plugin.evaluate.baselines.method import Work, do, parser

with stop_on_user_error():
    do(Work(**vars(parser().parse_args())))
