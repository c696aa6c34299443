"""Numbers as text, for every reader: a terminal, Markdown, a page."""

from __future__ import annotations

NONE = "-"


def number(value: float | None, digits: int = 3) -> str:
    """To so many decimals; a dash where undefined. What rounds to zero has no sign."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")


def signed(value: float | None, digits: int = 3, *, zero: str = "") -> str:
    """As `number`, with the sign of a plus, too; ``zero`` is the sign of zero."""
    text = number(value, digits)
    if value is None or text.startswith("-"):
        return text
    return f"+{text}" if float(text) else zero + text


def p_value(value: float | None) -> str:
    """To three decimals, or that it is smaller."""
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def ends(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """An interval, such as ``0.480 to 0.544``; empty where it has no ends."""
    if low is None or high is None:
        return ""
    form = signed if sign else number
    return f"{form(low)} to {form(high)}"
