"""``python -m regreason_plugin.baselines``: one method in a process of its own."""

from regreason_plugin.baselines.work import Work, do, parser
from regreason_plugin.errors import stop_on_user_error

with stop_on_user_error():
    do(Work(**vars(parser().parse_args())))
