"""What a check finds: `regreason check` lists all of it, a training stops at the first error."""

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

# `--sweep` appends this to output_dir, in an order that is shuffled.
SWEEP = re.compile(r"sweep\d{4}")


class Finding(NamedTuple):
    """One line.

    Attributes:
        level: ``error`` stops a training; a ``warning`` can silently hurt a comparison;
            ``not checked`` names what could not be looked at, and why.
        text: Where it is, what is wrong and what to do, on one line.
    """

    level: Level
    text: str


def finding(
    level: Level, message: str, *, path: str | Path | None = None, field: str | None = None
) -> Finding:
    """A finding that says where it is as a `UserError` does."""
    return Finding(level, str(UserError(message, path=path, field=field)))


def raise_first(findings: Iterable[Finding]) -> list[Finding]:
    """Go through findings up to the first error.

    Returns:
        All of them, if none is an error.

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
    """The error that a check raises, as a finding."""
    try:
        check()
    except UserError as error:
        yield Finding("error", str(error))


def say(findings: Iterable[Finding]) -> None:
    """Print what is no error on standard error, once for all processes."""
    if os.environ.get("RANK", "0") == "0":
        for one in findings:
            print(f"regreason: {one.level}: {one.text}", file=sys.stderr, flush=True)


def config_name(cfg: Mapping[str, Any]) -> str:
    """What to call a config in a message; a sweep's is a temporary file, soon gone."""
    path = Path(cfg.get("axolotl_config_path") or "config")
    run = Path(cfg.get("output_dir") or "").name
    if path.parent == Path(tempfile.gettempdir()) and SWEEP.fullmatch(run):
        return f"run {run} of the sweep"
    return str(path)
