"""Progress while raters are asked: a live table in a terminal, a line every 30 s elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from regreason_plugin.annotate.lanes import Tally
from regreason_plugin.cli.console import progress

_SECONDS_BETWEEN_LINES = 30.0
# A server that gives no reply for so long is named, with the reason.
_SECONDS_UNTIL_WAITING = 3.0
_COLUMNS = ("done", "failed", "before", "left", "calls/s", "tokens in", "out", "cost", "time left")


class ConsoleWatcher:
    """Shows a table while raters are asked, and then a progress line.

    Args:
        console: The console to print to.
        ratings: The number of ratings to be written; None if it is unknown.
    """

    def __init__(self, console: Console, ratings: int | None) -> None:
        self._console = console
        self._ratings = ratings

    @contextmanager
    def asking(self, what: str, tallies: Sequence[Tally]) -> Iterator[None]:
        """Show progress while raters are asked."""
        console, started = self._console, time.monotonic()
        console.print(what, markup=False, highlight=False)

        def seconds() -> float:
            return time.monotonic() - started

        if console.is_terminal:
            with Live(
                get_renderable=lambda: _table(tallies, seconds()),
                console=console,
                refresh_per_second=2,
            ):
                yield
            return
        ended = Event()

        def lines() -> None:
            while not ended.wait(_SECONDS_BETWEEN_LINES):
                console.print(_line(tallies, seconds()), markup=False, highlight=False)

        thread = Thread(target=lines, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            last = _table(tallies, seconds())
            # A log file has no width: the table takes the width that it needs.
            needed = console.measure(last, options=console.options.update(max_width=1000)).maximum
            Console(file=console.file, width=max(console.width, needed)).print(last)

    @contextmanager
    def writing(self) -> Iterator[Callable[[], object]]:
        """Show progress while ratings are written; yields a function to call after each one."""
        with progress(self._ratings) as advance:
            yield lambda: advance("write", 1)


def _table(tallies: Sequence[Tally], seconds: float) -> Table:
    """One line for each rater; the caption has the failures, and the raters that are waited for."""
    said = [*_failures(tallies), *_waits(tallies)]
    shown = Table(
        title=f"{sum(one.left for one in tallies):,} calls left",
        # As `Text`, because the words of a server may look like markup.
        caption=Text("\n".join(said)) if said else None,
        caption_justify="left",
    )
    shown.add_column("rater", no_wrap=True)
    for name in _COLUMNS:
        shown.add_column(name, justify="right", no_wrap=True)
    for one in tallies:
        rate = one.states.total() / seconds if seconds > 0 else 0.0
        shown.add_row(
            one.name,
            f"{one.done:,}",
            f"{one.failed:,}",
            f"{one.before:,}",
            f"{one.left:,}",
            f"{rate:.1f}",
            f"{one.prompt_tokens:,}",
            f"{one.answer_tokens:,}",
            f"{one.cost:,.2f}" if one.priced else "-",
            "-" if one.ended or not rate else _duration(one.left / rate),
        )
    return shown


def _duration(seconds: float) -> str:
    """``42 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _failures(tallies: Sequence[Tally]) -> list[str]:
    kinds = sum((one.failures() for one in tallies), Counter[str]())
    named = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return [f"failed: {named}"] if named else []


def _waits(tallies: Sequence[Tally]) -> list[str]:
    """A sentence for each rater whose server has given no reply for some seconds."""
    sentences = []
    for one in tallies:
        waiting = None if one.ended else one.waiting()
        seconds = time.monotonic() - waiting.since if waiting else 0.0
        if waiting and seconds >= _SECONDS_UNTIL_WAITING:
            sentences.append(f"waiting for {one.name} for {_duration(seconds)}: {waiting.why}")
    return sentences


def _line(tallies: Sequence[Tally], seconds: float) -> str:
    done = sum(one.done for one in tallies)
    failed = sum(one.failed for one in tallies)
    left = sum(one.left for one in tallies)
    rate = (done + failed) / seconds
    remaining = _duration(left / rate) if rate else "unknown"
    said = f"{done:,} done, {failed:,} failed, {left:,} left, {rate:.1f} calls/s, {remaining} left"
    return "; ".join([said, *_waits(tallies)])
