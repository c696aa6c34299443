"""Markdown templates and tables that escape every text from outside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from regreason_plugin.core.printable import one_line

# Characters of Markdown's syntax; an underscore within a word is not one of them.
_MARKUP = re.compile(r"([\\`*<>\[\]|#&~]|(?<![^\W_])_|_(?![^\W_]))")


class Markdown(str):
    """Text that is already Markdown, so it is not escaped again."""

    __slots__ = ()

    def __html__(self) -> str:
        """The text unchanged; jinja2 calls this method instead of escaping the text."""
        return self


def render(template: str, **values: Any) -> str:
    """Fill a template of this package, such as ``data_folder/card.md.j2``.

    Values are escaped by `escape`, unless they are `Markdown`.

    Args:
        template: Path of the template within the package.
        values: The template's variables.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("regreason_plugin", ""),
        # This only makes the results of macros safe; `finalize` has escaped every value before.
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") else escape(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": code,
        "codes": lambda names: Markdown(", ".join(map(code, names))),
        "count": "{:,}".format,
        "sentence": sentence,
        "table": table,
        "text": plain_text,
    }
    return environment


def table(
    rows: Iterable[Sequence[object]],
    header: Sequence[object],
    sides: str,
    footer: Iterable[Sequence[object]] = (),
) -> Markdown:
    """A Markdown table; cells are escaped unless they are `Markdown`.

    Args:
        rows: Rows below the header.
        header: Names of the columns.
        sides: Alignment of each column, ``l`` or ``r``; the last letter also holds for all
            further columns.
        footer: Rows in bold at the end.
    """
    marks = {"l": Markdown(":---"), "r": Markdown("---:")}
    rule = [marks[side] for side in sides.ljust(len(header), sides[-1])]
    bold = ([Markdown(f"**{_cell(value)}**" if value else "") for value in row] for row in footer)
    lines = (" | ".join(map(_cell, row)) for row in (header, rule, *rows, *bold))
    return Markdown("\n".join(f"| {line} |" for line in lines))


def _cell(value: object) -> str:
    return value if isinstance(value, Markdown) else escape(value)


def escape(text: object) -> Markdown:
    """Escape a text so that Markdown shows it as plain text on one line, also within a table."""
    return Markdown(_MARKUP.sub(r"\\\1", one_line(text)))


def plain_text(text: object) -> Markdown:
    """Escape a text for any place: it starts no list and its addresses become no links."""
    plain = re.sub(r"(?<=:)(?=//)|(?<=\bwww)(?=\.)", r"\\", escape(text), flags=re.IGNORECASE)
    return Markdown(re.sub(r"^(\d*)([.)+](?=\s|$)|-|=+$)", r"\1\\\2", plain))


def sentence(text: str) -> Markdown:
    """Escape one of our own sentences, except that text between backticks becomes code."""
    parts = enumerate(text.split("`"))
    joined = "".join(code(part) if index % 2 else _spaced(part) for index, part in parts)
    return Markdown(joined.strip())


def _spaced(part: str) -> str:
    """The escaped text between two code spans, with the spaces at its ends."""
    before, after = (" " * part.startswith(" ")), (" " * (part.endswith(" ") and part != " "))
    return f"{before}{plain_text(part)}{after}"


def code(text: object) -> Markdown:
    """A code span of a text, which may stand in a table."""
    plain = one_line(text) or " "
    ticks = "`" * (_longest_run(plain) + 1)
    # A backtick at an end would become part of the fence, and a bar ends a table's cell even
    # within code.
    space = " " if plain.startswith("`") or plain.endswith("`") else ""
    return Markdown(f"{ticks}{space}{plain}{space}{ticks}".replace("|", "\\|"))


def block(text: str, language: str) -> Markdown:
    """A code block of a text."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return Markdown(f"{ticks}{language}\n{text.strip()}\n{ticks}")


def _longest_run(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)
