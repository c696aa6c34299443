"""``python -m regreason_plugin.evaluate.baselines``: runs one method in a separate process."""

import sys

from regreason_plugin.core.errors import stop_on_user_error
from regreason_plugin.evaluate.baselines.method import do
from regreason_plugin.evaluate.baselines.work import WORK

with stop_on_user_error():
    do(WORK.validate_json(sys.argv[1]))
