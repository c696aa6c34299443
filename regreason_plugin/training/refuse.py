"""How a user's mistake ends a training: one line, exit code 2, nothing written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from regreason_plugin.errors import UserError


@contextmanager
def stop_on_user_error() -> Iterator[None]:
    """Turn a `UserError` into one line on standard error and exit code 2.

    Axolotl would print the traceback of any exception but this one; with its default
    launcher, a line of accelerate's about the exit code follows ours.
    """
    try:
        yield
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"regreason: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
