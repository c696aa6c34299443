"""What the figures of a comparison share: their size, panels, titles and captions."""

from __future__ import annotations

import math
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from regreason_plugin.comparison.comparison import Comparison, Difference
from regreason_plugin.comparison.finding_words import mark
from regreason_plugin.core.markdown import one_line
from regreason_plugin.core.numbers import signed
from regreason_plugin.render import tables

# Panels side by side, and how many inches of them.
ACROSS = 4
MOST_WIDE = 14
# Characters of a label that are drawn.
LONGEST = 24


def new_figure(width: float, height: float, least: float = 6.5) -> Figure:
    """An empty one, in inches, not narrower than the least width."""
    return Figure(
        (max(width, least), height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    )


def rows_and_columns(panels: int, across: int = ACROSS) -> tuple[int, int]:
    """Rows and columns, with as few empty places as that many rows can have."""
    rows = math.ceil(panels / across)
    return rows, math.ceil(panels / rows)


def arm_panels(
    comparison: Comparison, width: float, heights: dict[str, float]
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """A panel a key and arm, the baseline first; each key has rows of its own.

    Args:
        comparison: Whose arms.
        width: Of a panel, in inches.
        heights: Of the panels, by key.
    """
    everyone = [comparison.baseline, *comparison.arms]
    across = max(1, min(ACROSS, int(MOST_WIDE / width)))
    rows, columns = rows_and_columns(len(everyone), across)
    figure = new_figure(0.6 + width * columns, 1.2 + rows * sum(heights.values()))
    by_row = [height for height in heights.values() for _ in range(rows)]
    grid = figure.subplots(len(by_row), columns, squeeze=False, height_ratios=by_row)
    panels: dict[tuple[str, str], Axes] = {}
    for number, key in enumerate(heights):
        places = list(grid[number * rows : (number + 1) * rows].flat)
        for axes in places[len(everyone) :]:
            axes.set_axis_off()
        panels |= {(key, arm): axes for arm, axes in zip(everyone, places, strict=False)}
    return figure, panels


def shortened(name: str) -> str:
    """On one line, and not longer than there is room for."""
    text = one_line(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def wrapped(name: str, width: int) -> str:
    """In lines of so many characters."""
    return textwrap.fill(one_line(name), width) or " "


def setting_names(comparison: Comparison) -> list[str]:
    """Dataset and axis of each."""
    return [wrapped(f"{one.dataset}, {one.axis_title}", 44) for one in comparison.settings]


def short_difference(difference: Difference) -> str:
    """Without its interval."""
    return f"{signed(difference.value)}{mark(difference) if difference.value is not None else ''}"


def set_title(figure: Figure, comparison: Comparison, text: str) -> None:
    """Put it on top; it says where the data were generated."""
    generated = " (GENERATED data)" if "generated" in str(comparison.data.get("origin")) else ""
    width = int(figure.get_figwidth() * 11)
    figure.suptitle(wrapped(text + generated, width), fontsize=12)


def set_caption(figure: Figure, comparison: Comparison, *lines: str) -> None:
    """Put lines below, and then what was compared."""
    captions = [*filter(None, lines), f"{tables.caption(comparison)}."]
    width = int(figure.get_figwidth() * 17)
    text = "\n".join(wrapped(line, width) for line in captions)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5)
