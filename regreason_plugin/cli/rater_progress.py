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
from regreason_plugin.annotate.preflight import FirstAnswer
from regreason_plugin.annotate.quality_alarm import ADVICE
from regreason_plugin.cli.console import print_whole, progress
from regreason_plugin.core.printable import one_line

_SECONDS_BETWEEN_LINES = 30.0
# A server that gives no reply for so long is named, with the reason.
_SECONDS_UNTIL_WAITING = 3.0
_QUOTED = 500  # characters of a first answer to print
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
            print_whole(console, _table(tallies, seconds()))

    def answered_first(self, first: FirstAnswer) -> None:
        """Print a rater's answer to its first question, and an estimate for the calls left."""
        for line in _first_answer(first):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def writing(self) -> Iterator[Callable[[], object]]:
        """Show progress while ratings are written; yields a function to call after each one."""
        with progress(self._ratings) as advance:
            yield lambda: advance("write", 1)


def _first_answer(first: FirstAnswer) -> list[str]:
    rater, outcome = first.rater, first.outcome
    served = f", served as {one_line(outcome.served, 100)}" if outcome.served else ""
    took = "from the store" if first.seconds is None else f"{first.seconds:.1f} s"
    lines = [f"First answer of {rater.name} ({rater.model}{served}), {took}: {outcome.state}"]
    if outcome.score is not None:
        lines.append(f"  score: {outcome.score}")
    if outcome.explanation is not None:
        lines.append(f"  explanation: {one_line(outcome.explanation, _QUOTED)}")
    if outcome.answer:
        lines.append(f"  the server's words: {one_line(outcome.answer, _QUOTED)}")
    if outcome.state in ADVICE:
        lines.append(f"  to change: {ADVICE[outcome.state]}")
    if first.left:
        seconds, cost = first.seconds_left, first.cost_left
        time_left = "unknown" if seconds is None else f"about {_duration(seconds)}"
        price = "unknown" if cost is None else f"about {cost:,.2f}"
        lines.append(f"  {first.left:,} calls left: time {time_left}, cost {price}")
    return lines


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
            _cost(one),
            "-" if one.ended or not rate else _duration(one.left / rate),
        )
    return shown


def _cost(tally: Tally) -> str:
    """The cost so far; ``unknown`` without a price, or if the server reports no tokens."""
    known = tally.priced and (tally.prompt_tokens or not tally.done)
    return f"{tally.cost:,.2f}" if known else "unknown"


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
