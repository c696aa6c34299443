"""Numbers as the page prints them, and the round numbers of its scales."""

from __future__ import annotations

import math
from collections.abc import Iterable

from regreason_plugin.compare.comparison import Gap, Interval

NONE = "\N{EN DASH}"
# A hyphen is shorter than a plus, and columns of the two would not align.
MINUS = "\N{MINUS SIGN}"


def plain(value: float | None, digits: int = 3) -> str:
    """A value, such as ``0.512``; a dash where undefined."""
    if value is None:
        return NONE
    text = f"{abs(value):.{digits}f}"
    return MINUS + text if value < 0 and float(text) else text


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, such as ``+0.020``; zero has no sign."""
    text = plain(value, digits)
    return "+" + text if value is not None and value > 0 and float(text) else text


def span(interval: Interval, sign: bool = False) -> str:
    """The ends of an interval, such as ``+0.010 to +0.050``; empty where it has none."""
    if interval.low is None or interval.high is None:
        return ""
    form = signed if sign else plain
    return f"{form(interval.low)} to {form(interval.high)}"


def p_value(value: float | None) -> str:
    """To three decimals, or that it is smaller."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: int) -> str:
    """A count, its thousands set apart."""
    return f"{value:,}"


def share(gap: Gap) -> tuple[str, str]:
    """The share of a gain that is kept, and what can be said of it, in words."""
    if gap.value is None and gap.low is None and gap.high is None:
        return NONE, "undefined" if gap.kind != "everything" else "unbounded: any share is possible"
    low, high = plain(gap.low, 2), plain(gap.high, 2)
    words = {
        "between": f"{low} to {high}",
        "outside": f"unbounded: {low} or less, or {high} or more",
        "everything": "unbounded: any share is possible",
    }
    return plain(gap.value, 2), words[gap.kind]


def round_up(value: float) -> float:
    """The least of 1, 2 or 5 times a power of ten that is not below a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= value * (1 - 1e-9))


def limits(values: Iterable[float | None], *more: float, pad: float = 0.05) -> tuple[float, float]:
    """The ends of an axis that shows all of the values and a little more."""
    known = [value for value in (*values, *more) if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = (high - low) * pad or abs(high) * pad or pad
    return low - room, high + room


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers within an axis, about as many as wanted."""
    step = round_up((high - low) / (about + 1))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def tick_text(value: float, sign: bool = False) -> str:
    """A tick's label, as short as it can be: ``20k``, ``+0.05``."""
    size = abs(value)
    text = f"{size / 1000:g}k" if size >= 10_000 else f"{size:g}"
    if value < 0:
        return MINUS + text
    return "+" + text if sign and value > 0 else text
