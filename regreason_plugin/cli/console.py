"""What the commands share: consoles, a progress line, types of arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from regreason_plugin.core.errors import UserError, nearest

console = Console()
# Progress and errors go to standard error, so that what a command prints can be piped.
errors = Console(stderr=True)
# The help of the flag of every command that writes CSV.
SPREADSHEET_SAFE = (
    "put an apostrophe before text in the CSV file that a spreadsheet would run as a formula, and "
    "U+FFFD in place of control characters; without it text is written as it is"
)
# All but the tab and the end of a line.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def say(text: str) -> None:
    """Print a line as it is: no markup, and no colour for numbers and paths.

    Control characters, which move a terminal's cursor and more, become U+FFFD.
    """
    shown = _CONTROL.sub("\ufffd", text)
    console.print(shown, highlight=False, markup=False, soft_wrap=True)


def names(given: str, kind: str, known: list[str]) -> tuple[str, ...]:
    """Names out of ``a,b,c`` or ``all``, in the known order."""
    names = known if given == "all" else [name.strip() for name in given.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    return tuple(name for name in known if name in names)


def positive(text: str) -> int:
    """A number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def amount(text: str) -> float:
    """A number of at least 0; "nan" would be no limit to anything."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no amount")
    return number


def distance(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def share(text: str) -> float:
    """A number between 0 and 1, both excluded."""
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def mini_size(text: str) -> int:
    """As many conversations a dataset as the mini benchmark needs."""
    number = positive(text)
    if number < 30:
        raise argparse.ArgumentTypeError("the mini benchmark needs 30 conversations a dataset")
    return number


@contextmanager
def progress(total: int | None = None) -> Iterator[Callable[[str, int], object]]:
    """A progress line a stage: yields ``advance(stage, rows)``; every stage has ``total``."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as bar:
        stages = {}

        def advance(stage: str, rows: int) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=total)
            bar.advance(stages[stage], rows)

        yield advance
