"""The style of figures: colours, lines and fonts; the same input gives the same bytes."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

# Okabe and Ito's colours without yellow, which is hardly visible on white. The numbers of
# colours, dashes and markers have no common divisor, so that 252 curves have different looks;
# markers and dashes also distinguish curves in greyscale.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
# Greys, from dark to light.
MIDDLE, FAINT, BAR, GRID, SHADE = "0.5", "0.75", "0.82", "0.85", "0.92"
STYLE = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "legend.fontsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    # A name with dollar signs is drawn as a name, not as a formula.
    "text.parse_math": False,
    # The salt makes ids, and so the bytes, reproducible. Text stays text, so that it can be
    # searched and read aloud.
    "svg.hashsalt": "regreason",
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Apply only our style within the context: a user's matplotlibrc has no effect.

    The process's own style is restored afterwards.
    """
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        # Letters that the font lacks are boxes in the PNG, and correct text in the SVG.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def line_style(number: int) -> dict[str, Any]:
    """Plot keywords for the curve of the arm or model with this number, from 0."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 5.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
        "linewidth": 1.6,
    }


def floats(values: Iterable[float | None]) -> list[float]:
    """The values with NaN for None, at which matplotlib leaves a gap."""
    return [math.nan if value is None else value for value in values]


def legend(axes: Axes, names: Iterable[str], others: dict[str, Artist]) -> None:
    """Fill a panel with the legend: a line for each name, in order, then the other artists."""
    axes.set_axis_off()
    names = list(names)
    lines = [Line2D([], [], **line_style(number)) for number in range(len(names))]
    texts = [*(textwrap.fill(name, 40) for name in names), *others]
    # The texts are set afterwards: matplotlib leaves out labels that begin with an underscore.
    blank = [str(number) for number in range(len(texts))]
    made = axes.legend(
        [*lines, *others.values()],
        blank,
        loc="center",
        frameon=False,
        handlelength=3.5,
        # Long names leave no room for a second column.
        ncols=1 + (len(texts) > 12 and max(map(len, texts)) <= 20),
    )
    for text, name in zip(made.get_texts(), texts, strict=True):
        text.set_text(name)
