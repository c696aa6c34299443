"""`axolotl train` as a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """Axolotl looks for accelerate on the PATH, which an environment need not be on.

    And the plugins of the tests lie here, not in a package; the package is this checkout's.
    """
    beside = str(Path(sys.executable).parent)
    path = f"{beside}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}


def axolotl_train(
    *arguments: str | Path, cwd: Path, timeout: int = 300
) -> subprocess.CompletedProcess[str]:
    """The real command."""
    return subprocess.run(
        ["axolotl", "train", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
