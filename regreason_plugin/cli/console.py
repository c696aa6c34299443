"""Consoles, the progress line and the argument types that all commands use."""

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
from rich.table import Table

from regreason_plugin.core.errors import UserError, nearest

console = Console()
# Progress and errors go to standard error, so that standard output can be piped.
errors = Console(stderr=True)
# The help of --spreadsheet-safe, which every command that writes CSV has.
SPREADSHEET_SAFE = (
    "in the CSV file, put an apostrophe before text that a spreadsheet would run as a formula, and "
    "write U+FFFD for control characters; by default text is written unchanged"
)
# Every control character but the tab and the line feed.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def say(text: str) -> None:
    """Print a line without interpreting markup or colouring numbers and paths.

    Control characters, which could move the terminal's cursor, become U+FFFD.
    """
    shown = _CONTROL.sub("\ufffd", text)
    console.print(shown, highlight=False, markup=False, soft_wrap=True)


def print_whole(target: Console, table: Table) -> None:
    """Print a table with all its numbers, without the spaces beside them if it is too wide.

    A table that is still too wide is printed in its own width, as Rich would cut its cells.
    """

    def needed() -> int:
        return target.measure(table, options=target.options.update(max_width=1000)).maximum

    if needed() > target.width:
        table.padding = 0
    Console(file=target.file, width=max(target.width, needed())).print(table)


def names(given: str, kind: str, known: list[str]) -> tuple[str, ...]:
    """Parse ``a,b,c`` or ``all`` into names, in the order of `known`."""
    names = known if given == "all" else [name.strip() for name in given.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    return tuple(name for name in known if name in names)


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def batch_size(text: str) -> int | str:
    """Parse a number of rows in a batch, or ``auto``."""
    return text if text == "auto" else positive(text)


def amount(text: str) -> float:
    """Parse a number of at least 0; "nan" and "inf" are refused."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return number


def distance(text: str) -> float:
    """Parse a number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def share(text: str) -> float:
    """Parse a number between 0 and 1, both excluded."""
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def mini_size(text: str) -> int:
    """Parse a number of conversations that is large enough for the mini benchmark."""
    number = positive(text)
    if number < 30:
        raise argparse.ArgumentTypeError(
            "the mini benchmark needs at least 30 conversations for each dataset"
        )
    return number


@contextmanager
def progress(total: int | None = None) -> Iterator[Callable[[str, int], object]]:
    """Show one progress line for each stage.

    Yields ``advance(stage, rows)``, which adds rows to a stage; ``total`` is the number of rows of
    every stage.
    """
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
