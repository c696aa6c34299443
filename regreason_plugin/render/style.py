"""How pictures look: colours, lines, fonts, and the same bytes for the same input."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from regreason_plugin.core.layers import middle_blocks

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


def layers(
    axes: Axes,
    title: str,
    unit: str,
    curves: Sequence[Sequence[tuple[float | None, float | None, float | None]]],
    name: str,
) -> None:
    """Draw a panel of one quantity by layer, with bands; the middle blocks are shaded.

    Args:
        axes: Where.
        title: Of the panel.
        unit: Of the quantity.
        curves: By model: mean and both ends of its interval for each of its L + 1 layers, the
            first that of the embeddings. Models may differ in depth.
        name: For the SVG's ids, ``curve-<name>-<number of the model>`` and ``band-...``.
    """
    axes.set_title(title)
    axes.set_xlabel("depth (0 embeddings, 1 last block)")
    axes.set_ylabel(unit)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    for blocks in {len(curve) - 1 for curve in curves}:
        if middle := middle_blocks(blocks):
            # Half a block to either side, so that a single block is seen, too.
            ends = (middle[0] - 0.5) / blocks, (middle[-1] + 0.5) / blocks
            axes.axvspan(*ends, color=SHADE, linewidth=0, zorder=0)
    for number, curve in enumerate(curves):
        blocks = len(curve) - 1
        depth = [layer / blocks for layer in range(len(curve))]
        means, lower, upper = (floats(values) for values in zip(*curve, strict=True))
        drawn = look(number)
        band = axes.fill_between(depth, lower, upper, color=drawn["color"], alpha=0.18, linewidth=0)
        band.set_gid(f"band-{name}-{number}")
        # About eight markers a curve, not at the same layers as the next curve's.
        step = max(1, blocks // 8)
        (line,) = axes.plot(depth, means, markevery=(number % step, step), **drawn)
        line.set_gid(f"curve-{name}-{number}")


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
