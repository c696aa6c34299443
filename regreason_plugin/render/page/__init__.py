"""``report.html``: a comparison as one self-contained page, which loads nothing from elsewhere.

Text from outside (documents, names, paths) is never markup: jinja2 escapes it, or it is embedded as
JSON that the script reads. The page's content security policy lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from regreason_plugin.comparison.comparison import Comparison
from regreason_plugin.comparison.disagreements import Disagreement
from regreason_plugin.comparison.finding_words import capital
from regreason_plugin.core.numbers import ends, number, p_value, signed
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.render.curve_figures import entropy_title
from regreason_plugin.render.page.view import share_kept, typeset, view


def write_page(
    comparison: Comparison, disagreements: list[Disagreement], disagreeing: int, path: Path
) -> None:
    """Write the page, whole or not at all; the same input gives the same bytes.

    Args:
        comparison: The comparison to show.
        disagreements: Documents on which the arms disagree, shown with their texts.
        disagreeing: Number of all documents on which the arms disagree.
        path: The HTML file to write.
    """
    style, script = _own("page.css"), _own("page.js")
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            view(comparison, disagreements, disagreeing),
            style=style,
            script=script,
            policy="; ".join(
                [
                    "default-src 'none'",
                    f"style-src {_hash(style)}",
                    f"script-src {_hash(script)}",
                    "img-src data:",
                    "base-uri 'none'",
                    "form-action 'none'",
                ]
            ),
        )
    )
    with atomic_writer(path) as stream:
        # (A lone half of a surrogate pair cannot be encoded.)
        stream.write(text.encode("utf-8", "replace"))


def _own(name: str) -> Markup:
    """A file of this package, with LF line ends: those are what a browser hashes."""
    text = files(__name__).joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")
    return Markup(text)  # noqa: S704 - our own style sheet and script


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__name__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": _typeset(number),
        "signed": _typeset(signed),
        "span": _typeset(lambda one, sign=False: ends(one.low, one.high, sign=sign)),
        "p_value": _typeset(p_value),
        "count": "{:,}".format,
        "initial": capital,
        "code_spans": code_spans,
        "entropy_title": entropy_title,
        "share_kept": share_kept,
        "json": embedded,
    }
    return environment


def _typeset(form: Callable[..., str]) -> Callable[..., str]:
    return lambda *values: typeset(form(*values))


def code_spans(text: str) -> list[tuple[bool, str]]:
    """Split a sentence at its backticks into (whether it is code, text), in order."""
    parts = re.split(r"(`+)(.+?)(?<!`)\1(?!`)", text)
    plain = [(False, part) for part in parts[::3]]
    code = [(True, part.strip()) for part in parts[2::3]]
    woven = [part for pair in zip(plain, [*code, (False, "")], strict=True) for part in pair]
    return [part for part in woven if part[1]]


def embedded(value: Any) -> Markup:
    """A value as JSON without any character that could end or begin an HTML element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no character of it is HTML's
