"""How pictures look: colours, lines, fonts, and the same bytes for the same input."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

# Okabe and Ito's colours without the yellow, which is lost on white. The numbers of
# colours, dashes and markers have no common divisor, so that no curve looks like another;
# markers and dashes also tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
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
    "grid.color": "0.85",
    "grid.linewidth": 0.6,
    # A name with a dollar sign is a name, not a formula.
    "text.parse_math": False,
    # The same bytes for the same input; text stays text, to be found and read aloud.
    "svg.hashsalt": "regreason",
    "svg.fonttype": "none",
}
SHADE = "0.92"


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


def caption(figure: Figure, lines: Iterable[str], width: int) -> None:
    """What the numbers are, below the panels; ``width`` in characters."""
    text = "\n".join(textwrap.fill(line, width) for line in lines)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5)


def png_and_svg(figure: Figure, dpi: int = 200) -> tuple[bytes, bytes]:
    """Both are the same for the same figure; to be called within `style`."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi)
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return png.getvalue(), svg.getvalue()
