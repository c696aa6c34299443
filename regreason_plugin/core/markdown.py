"""Markdown: templates and tables in which text from outside is never markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

# An underscore within a word is none.
_MARKUP = re.compile(r"([\\`*<>\[\]|#&~]|(?<![^\W_])_|_(?![^\W_]))")


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""

    __slots__ = ()

    def __html__(self) -> str:
        """As itself, where jinja2 would escape it."""
        return self


def render(template: str, **values: Any) -> str:
    """Fill a template of this package, such as ``data_folder/card.md.j2``.

    A value is escaped as by `escape`, unless it is `Markdown`.

    Args:
        template: Its path in the package.
        values: What the template names.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("regreason_plugin", ""),
        # (Macros' results are Markdown; what is to be escaped is so by `finalize`, before.)
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
    """A table, whose cells are escaped unless they are `Markdown`.

    Args:
        rows: Below the header.
        header: The names of the columns.
        sides: A letter a column, ``l`` or ``r``; the last letter holds for all columns after it.
        footer: Rows in bold.
    """
    marks = {"l": Markdown(":---"), "r": Markdown("---:")}
    rule = [marks[side] for side in sides.ljust(len(header), sides[-1])]
    bold = ([Markdown(f"**{_cell(one)}**" if one else "") for one in row] for row in footer)
    lines = (" | ".join(map(_cell, row)) for row in (header, rule, *rows, *bold))
    return Markdown("\n".join(f"| {line} |" for line in lines))


def _cell(value: object) -> str:
    return value if isinstance(value, Markdown) else escape(value)


def escape(text: object) -> Markdown:
    """As plain text, on one line, also within a table."""
    return Markdown(_MARKUP.sub(r"\\\1", one_line(text)))


def plain_text(text: object) -> Markdown:
    """As plain text at any place: no list at a line's start, no address made a link."""
    plain = re.sub(r"(?<=:)(?=//)|(?<=\bwww)(?=\.)", r"\\", escape(text), flags=re.IGNORECASE)
    return Markdown(re.sub(r"^(\d*)([.)+](?=\s|$)|-|=+$)", r"\1\\\2", plain))


def sentence(text: str) -> Markdown:
    """A sentence of ours, in which what stands between backticks is code."""
    parts = enumerate(text.split("`"))
    woven = "".join(code(part) if at % 2 else _spaced(part) for at, part in parts)
    return Markdown(woven.strip())


def _spaced(part: str) -> str:
    """Text between two spans of code, with the spaces next to them."""
    before, after = (" " * part.startswith(" ")), (" " * (part.endswith(" ") and part != " "))
    return f"{before}{plain_text(part)}{after}"


def code(text: object) -> Markdown:
    """As a span of code, also within a table."""
    plain = one_line(text) or " "
    ticks = "`" * (_longest_run(plain) + 1)
    # A backtick at an end would join the fence; a bar ends a table's cell even in code.
    space = " " if plain.startswith("`") or plain.endswith("`") else ""
    return Markdown(f"{ticks}{space}{plain}{space}{ticks}".replace("|", "\\|"))


def block(text: str, language: str) -> Markdown:
    """As a block of code."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return Markdown(f"{ticks}{language}\n{text.strip()}\n{ticks}")


def one_line(text: object) -> str:
    """Without line ends, controls and what changes the direction of writing."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def _longest_run(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)
