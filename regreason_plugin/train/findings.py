"""Findings of checks: `regreason check` lists all of them, a training stops at the first error."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from regreason_plugin.core.errors import UserError

Level = Literal["error", "warning", "not checked"]

# `--sweep` appends this to output_dir; Axolotl shuffles the runs before it numbers them.
SWEEP = re.compile(r"sweep\d{4}")


class Finding(NamedTuple):
    """One finding of a check, printed as one line.

    Attributes:
        level: ``error`` stops a training; ``warning`` marks a setting that can silently distort a
            comparison; ``not checked`` says what could not be checked, and why.
        text: Place, fault and remedy, on one line.
    """

    level: Level
    text: str


def finding(
    level: Level, message: str, *, path: str | Path | None = None, field: str | None = None
) -> Finding:
    """Make a finding that names its place in the format of `UserError`."""
    return Finding(level, str(UserError(message, path=path, field=field)))


def raise_first(findings: Iterable[Finding]) -> list[Finding]:
    """Collect findings, and raise the first error among them.

    Returns:
        All findings, if none is an error.

    Raises:
        UserError: The first error.
    """
    passed = []
    for one in findings:
        if one.level == "error":
            raise UserError(one.text)
        passed.append(one)
    return passed


def error_of(check: Callable[[], object]) -> Iterator[Finding]:
    """Run a check, and yield the `UserError` that it raises as a finding."""
    try:
        check()
    except UserError as error:
        yield Finding("error", str(error))


def say(findings: Iterable[Finding]) -> None:
    """Print findings that are no errors to standard error, in the first process only."""
    if os.environ.get("RANK", "0") == "0":
        for one in findings:
            print(f"regreason: {one.level}: {one.text}", file=sys.stderr, flush=True)


def config_name(cfg: Mapping[str, Any]) -> str:
    """Name of a config in messages.

    A run of a sweep is named by its number, because its config is a temporary file that is soon
    deleted.
    """
    path = Path(cfg.get("axolotl_config_path") or "config")
    run = Path(cfg.get("output_dir") or "").name
    if path.parent == Path(tempfile.gettempdir()) and SWEEP.fullmatch(run):
        return f"run {run} of the sweep"
    return str(path)
