"""The code blocks of a Markdown page, run as a reader would type them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from helpers.axolotl import environment, programs


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in this language, in their order, without their indentation."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def typed(command: str, cwd: Path, *, forked: bool = True, codes: tuple[int, ...] = (0,)) -> str:
    """Run a block as bash would, and return what it printed.

    Args:
        command: One or more command lines.
        cwd: The folder to stand in.
        forked: Whether `axolotl`, `regreason` and `lm_eval` are forks of processes that have
            imported them, which saves most of their start.
        codes: The exit codes that are allowed.

    Raises:
        AssertionError: The block ended with another exit code.
    """
    variables = environment()
    if forked:
        variables["PATH"] = f"{programs()}{os.pathsep}{variables['PATH']}"
    return _run(["bash", "-euo", "pipefail", "-c", command], cwd, variables, codes)


def in_python(program: str, cwd: Path) -> str:
    """Run a page's Python in a process of its own, and return what it printed."""
    return _run([sys.executable, "-c", program], cwd, environment(), (0,))


def _run(words: list[str], cwd: Path, variables: dict[str, str], codes: tuple[int, ...]) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**variables, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode in codes, f"{words[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr
