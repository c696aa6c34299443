"""Shared parts of a comparison's figures: size, panels, titles and captions."""

from __future__ import annotations

import math
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from regreason_plugin.comparison.comparison import Comparison, Difference, Setting
from regreason_plugin.comparison.finding_words import mark
from regreason_plugin.core.numbers import signed
from regreason_plugin.core.printable import one_line
from regreason_plugin.render import tables

# The most panels in a row, and the most inches that a row is wide.
ACROSS = 4
MOST_WIDE = 14
# The most characters of a label that are drawn.
LONGEST = 24


def new_figure(width: float, height: float, least: float = 6.5) -> Figure:
    """An empty figure of this width and height in inches, at least ``least`` inches wide."""
    return Figure(
        (max(width, least), height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    )


def rows_and_columns(panels: int, across: int = ACROSS) -> tuple[int, int]:
    """Rows and columns for this many panels: as few rows as possible, then as few columns."""
    rows = math.ceil(panels / across)
    return rows, math.ceil(panels / rows)


def arm_panels(
    comparison: Comparison, width: float, heights: dict[str, float]
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """A figure with one panel for each key and arm, the baseline first; a key begins a new row.

    Args:
        comparison: The comparison, which gives the arms.
        width: Width of a panel, in inches.
        heights: Height of the panels in inches, by key.

    Returns:
        The figure, and its panels by (key, arm).
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
    """The name on one line, cut to `LONGEST` characters."""
    text = one_line(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def wrapped(name: str, width: int) -> str:
    """The name in lines of at most ``width`` characters."""
    return textwrap.fill(one_line(name), width) or " "


def pooled_settings(comparison: Comparison) -> list[Setting]:
    """The settings of which the pooled figures are means; any other has another metric."""
    return [one for one in comparison.settings if one.pooled]


def setting_name(setting: Setting) -> str:
    """Dataset and axis, such as ``coqa, naturalness``; of any task of lm_eval, its name."""
    if setting.axis == setting.task:
        return wrapped(setting.axis_title, 44)
    return wrapped(f"{setting.dataset}, {setting.axis_title}", 44)


def short_difference(difference: Difference) -> str:
    """The difference with its mark, without its interval."""
    return f"{signed(difference.value)}{mark(difference) if difference.value is not None else ''}"


def set_title(figure: Figure, comparison: Comparison, text: str) -> None:
    """Set the figure's title, followed by "(GENERATED data)" where the data are generated."""
    generated = " (GENERATED data)" if "generated" in str(comparison.data.get("origin")) else ""
    width = int(figure.get_figwidth() * 11)
    figure.suptitle(wrapped(text + generated, width), fontsize=12)


def set_caption(figure: Figure, comparison: Comparison, *lines: str) -> None:
    """Set the lines below the figure, the last of which names data, settings and seeds."""
    captions = [*filter(None, lines), f"{tables.caption(comparison)}."]
    width = int(figure.get_figwidth() * 17)
    text = "\n".join(wrapped(line, width) for line in captions)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5)
