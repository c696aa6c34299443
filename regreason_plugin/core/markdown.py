"""Text from outside in Markdown: never markup."""

from __future__ import annotations

import re

# An underscore within a word is none.
_MARKUP = re.compile(r"([\\`*<>\[\]|#&~]|(?<![^\W_])_|_(?![^\W_]))")


def escape(text: object) -> str:
    """As plain text, on one line, also within a table."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def code(text: object) -> str:
    """As a span of code, also within a table."""
    plain = one_line(text) or " "
    ticks = "`" * (_longest_run(plain) + 1)
    # A backtick at an end would join the fence; a bar ends a table's cell even in code.
    space = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{ticks}{space}{plain}{space}{ticks}".replace("|", "\\|")


def block(text: str, language: str) -> str:
    """As a block of code."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}{language}\n{text.strip()}\n{ticks}"


def one_line(text: object) -> str:
    """Without line ends, controls and what changes the direction of writing."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def _longest_run(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)
