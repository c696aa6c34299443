"""How a user's mistake ends a training: one line, exit code 2, nothing written."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regreason_plugin.errors import UserError

# `--sweep` appends this to output_dir, in an order that is shuffled.
SWEEP = re.compile(r"sweep\d{4}")


def config_name(cfg: Mapping[str, Any]) -> str:
    """What to call a config in a message; a sweep's is a temporary file, soon gone."""
    path = Path(cfg.get("axolotl_config_path") or "config")
    run = Path(cfg.get("output_dir") or "").name
    if path.parent == Path(tempfile.gettempdir()) and SWEEP.fullmatch(run):
        return f"run {run} of the sweep"
    return str(path)


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
