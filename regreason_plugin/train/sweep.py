"""The runs of an Axolotl sweep, as they are called."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# `--sweep` appends this to output_dir, in an order that is shuffled.
SWEEP = re.compile(r"sweep\d{4}")


def config_name(cfg: Mapping[str, Any]) -> str:
    """What to call a config in a message; a sweep's is a temporary file, soon gone."""
    path = Path(cfg.get("axolotl_config_path") or "config")
    run = Path(cfg.get("output_dir") or "").name
    if path.parent == Path(tempfile.gettempdir()) and SWEEP.fullmatch(run):
        return f"run {run} of the sweep"
    return str(path)
