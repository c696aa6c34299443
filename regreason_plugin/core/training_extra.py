"""The extra ``train``: Axolotl, without which everything but training works."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from regreason_plugin.core.errors import UserError


def check_axolotl() -> None:
    """Refuse to go on if Axolotl is not installed.

    Raises:
        UserError: It is not; the message says how to install it, or in which Python that works.
    """
    if find_spec("axolotl") is not None:
        return
    if sys.version_info >= (3, 13):
        raise UserError(
            "training needs Axolotl, which Python 3.11 and 3.12 can install but "
            f"{sys.version_info[0]}.{sys.version_info[1]} cannot; scoring, compare, gate and "
            "predict work here"
        )
    raise UserError(
        "training needs Axolotl, which is not installed; `make setup` installs it in a checkout, "
        "and the extra `train` of the package elsewhere"
    )
