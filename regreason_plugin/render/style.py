"""How figures look: colours, lines, fonts, and the same bytes for the same input."""

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

# Okabe and Ito's colours without the yellow, which is lost on white. The numbers of
# colours, dashes and markers have no common divisor, so that no curve looks like another;
# markers and dashes also tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
# Greys, from the strongest.
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
    # A name with a dollar sign is a name, not a formula.
    "text.parse_math": False,
    # The same bytes for the same input; text stays text, to be found and read aloud.
    "svg.hashsalt": "regreason",
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Ours alone: a user's matplotlibrc has no say, nor is the process's style changed."""
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        # A name may be in letters that the font lacks: boxes in the PNG, itself in the SVG.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def look(number: int) -> dict[str, Any]:
    """How the curve of one arm or model is drawn, by its place among them."""
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
    """For matplotlib, which leaves a gap at NaN."""
    return [math.nan if value is None else value for value in values]


def legend(axes: Axes, names: Iterable[str], others: dict[str, Artist]) -> None:
    """Fill a panel with the look of each name, in their order, and with what else is drawn."""
    axes.set_axis_off()
    names = list(names)
    lines = [Line2D([], [], **look(number)) for number in range(len(names))]
    texts = [*(textwrap.fill(name, 40) for name in names), *others]
    # The texts come after: matplotlib would leave out a name with an underscore before it.
    blank = [str(number) for number in range(len(texts))]
    made = axes.legend(
        [*lines, *others.values()],
        blank,
        loc="center",
        frameon=False,
        handlelength=3.5,
        ncols=1 + (len(texts) > 12),
    )
    for text, name in zip(made.get_texts(), texts, strict=True):
        text.set_text(name)
