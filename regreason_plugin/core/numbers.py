"""Numbers as text, in the same form in a terminal, in Markdown and on a page."""

from __future__ import annotations

NONE = "-"


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` decimals and no minus sign if it rounds to zero; a dash for None."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")


def signed(value: float | None, digits: int = 3, *, zero: str = "") -> str:
    """A number in the form of `number`, with a plus sign if it is positive.

    Args:
        value: The number; None gives a dash.
        digits: Number of decimals.
        zero: Sign of a number that rounds to zero.
    """
    text = number(value, digits)
    if value is None or text.startswith("-"):
        return text
    return f"+{text}" if float(text) else zero + text


def p_value(value: float | None) -> str:
    """A p-value with three decimals, or ``< 0.001``; a dash for None."""
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def ends(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """An interval, such as ``0.480 to 0.544``; empty if an end is None.

    Args:
        low: The lower end.
        high: The upper end.
        sign: Whether positive ends have a plus sign.
    """
    if low is None or high is None:
        return ""
    form = signed if sign else number
    return f"{form(low)} to {form(high)}"
