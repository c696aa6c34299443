"""A comparison as figures, each as PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from regreason_plugin.compare.comparison import ALL, Comparison, Difference
from regreason_plugin.core.numbers import number
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.render import tables
from regreason_plugin.render.curve_figures import entropy_by_layer, learning_curves
from regreason_plugin.render.figure_panels import (
    LONGEST,
    arm_panels,
    new_figure,
    rows_and_columns,
    set_caption,
    set_title,
    setting_names,
    short_difference,
    shortened,
    wrapped,
)
from regreason_plugin.render.reliability_figure import reliability
from regreason_plugin.render.style import (
    FAINT,
    MIDDLE,
    floats,
    line_style,
    style,
)

FORMATS: dict[str, dict[str, Any]] = {"png": {"dpi": 200}, "svg": {"metadata": {"Date": None}}}
# As many labels' cells have their number in them.
NUMBERED = 20


def write_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Write every figure that the comparison has numbers for.

    Returns:
        The paths. The same comparison gives the same bytes.
    """
    paths = []
    with style():
        for name, draw in FIGURES.items():
            figure = draw(comparison)
            if figure is None:
                continue
            # Placed once for both files.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for suffix, options in FORMATS.items():
                paths.append(folder / f"{name}.{suffix}")
                with atomic_writer(paths[-1]) as stream:
                    figure.savefig(stream, format=suffix, **options)
    return paths


# --- settings -----------------------------------------------------------------------------


def accuracy_heatmap(comparison: Comparison) -> Figure:
    """Accuracy, a row a setting and a column an arm, coloured by the difference."""
    arms = comparison.arms
    rows = [setting.task for setting in comparison.settings]
    by_row = [[comparison.differences[arm][task]["acc"] for arm in arms] for task in rows]
    by_row.append([comparison.pooled[arm]["acc"] for arm in arms])
    scores = [
        [comparison.scores[arm][task]["acc"].value for arm in (comparison.baseline, *arms)]
        for task in rows
    ]
    scores.append(
        [comparison.pooled_scores[arm]["acc"].value for arm in (comparison.baseline, *arms)]
    )
    values = np.array([floats(one.value for one in row) for row in by_row])
    # The pooled row stands apart.
    tops = [*range(len(rows)), len(rows) + 0.35]
    figure = new_figure(3.2 + 1.05 * (1 + len(arms)), 2.2 + 0.34 * len(tops))
    axes = figure.subplots()
    known = np.abs(values[np.isfinite(values)])
    limit = max(0.05, known.max() if known.size else 0)
    norm = Normalize(-limit, limit)
    for top, row_scores, row, difference in zip(tops, scores, by_row, values, strict=True):
        edges = np.arange(1, len(arms) + 2), [top, top + 1]
        mesh = axes.pcolormesh(*edges, difference[None], cmap="RdBu", norm=norm)
        mesh.set(edgecolor="white", linewidth=1.5)
        axes.text(0.5, top + 0.5, number(row_scores[0]), ha="center", va="center")
        for column, (score, one) in enumerate(zip(row_scores[1:], row, strict=True)):
            dark = one.value is not None and abs(one.value) > 0.6 * limit
            axes.text(
                column + 1.5,
                top + 0.5,
                f"{number(score)}\n{short_difference(one)}",
                ha="center",
                va="center",
                fontsize=7.5,
                linespacing=0.95,
                color="white" if dark else "black",
            )
    axes.grid(visible=False)
    axes.set_xlim(0, len(arms) + 1)
    axes.set_ylim(tops[-1] + 1, 0)
    axes.tick_params(length=0)
    names = [wrapped(arm, 14) for arm in (comparison.baseline, *arms)]
    axes.set_xticks(np.arange(len(names)) + 0.5, names)
    axes.xaxis.tick_top()
    axes.set_yticks(np.array(tops) + 0.5, [*setting_names(comparison), "pooled"])
    axes.spines[:].set_visible(False)
    shrink, aspect = (0.9, 10) if len(rows) < 9 else (0.5, 25)
    bar = figure.colorbar(ScalarMappable(norm, "RdBu"), ax=axes, shrink=shrink, aspect=aspect)
    bar.set_label(wrapped(f"difference to {comparison.baseline}", 40))
    bar.outline.set_visible(False)
    set_title(figure, comparison, "Accuracy by setting")
    set_caption(
        figure,
        comparison,
        f"Below an accuracy: its difference to that of {comparison.baseline}. {tables.HOLM}: *.",
    )
    return figure


def differences(comparison: Comparison) -> Figure:
    """A forest plot: a panel an arm, a line a setting, the pooled difference below."""
    panels = len(comparison.arms)
    rows, columns = rows_and_columns(panels)
    figure = new_figure(
        2.2 + 2.5 * columns, 1.6 + rows * (1.1 + 0.19 * (len(comparison.settings) + 2))
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for arm, axes in zip(comparison.arms, grid.flat, strict=False):
        draw_differences(axes, comparison, arm)
        pooled = tables.interval(comparison.pooled[arm]["acc"], sign=True)
        wins = tables.wins(comparison, arm)
        axes.set_title(f"{wrapped(arm, 31)}\n{pooled}\nwins: {wins}", loc="left", fontsize=8.5)
    for axes in grid.flat[panels:]:
        axes.set_axis_off()
    # What stands above an empty place has the bottom's numbers.
    for axes in grid.flat[max(0, panels - columns) : panels]:
        axes.tick_params(labelbottom=True)
    set_title(figure, comparison, f"Accuracy: difference to {comparison.baseline}")
    set_caption(
        figure,
        comparison,
        f"Lines: {tables.interval_scope(comparison)}." if tables.interval_scope(comparison) else "",
        f"Filled: {tables.HOLM}. wins: settings with a positive difference, however small.",
    )
    return figure


def draw_differences(axes: Axes, comparison: Comparison, arm: str) -> None:
    """Draw one arm's panel of the forest plot."""
    count = len(comparison.settings)
    by_setting = [comparison.differences[arm][one.task]["acc"] for one in comparison.settings]
    colour = _arm_colour(comparison, arm)
    axes.axhline(count + 0.25, color=FAINT, linewidth=0.6)
    _forest(axes, by_setting, list(range(count)), colour, "o", 5)
    _forest(axes, [comparison.pooled[arm]["acc"]], [count + 1], colour, "D", 7)
    _forest_scales(axes, [*range(count), count + 1], [*setting_names(comparison), "pooled"])


def draw_pooled_differences(axes: Axes, comparison: Comparison) -> None:
    """Draw a line an arm, its pooled difference."""
    for place, arm in enumerate(comparison.arms):
        pooled = comparison.pooled[arm]["acc"]
        _forest(axes, [pooled], [place], _arm_colour(comparison, arm), "D", 7)
    names = [wrapped(arm, 31) for arm in comparison.arms]
    _forest_scales(axes, list(range(len(names))), names)


def _arm_colour(comparison: Comparison, arm: str) -> str:
    colour: str = line_style(1 + comparison.arms.index(arm))["color"]
    return colour


def _forest_lines(comparison: Comparison) -> int:
    return len(comparison.settings) + 2


def _forest_scales(axes: Axes, rows: list[int], names: list[str]) -> None:
    axes.axvline(0, color=MIDDLE, linewidth=0.9, zorder=1)
    axes.grid(visible=False)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+g}" if x else "0"))
    axes.set_ylim(rows[-1] + 0.7, -0.7)
    axes.set_yticks(rows, names)


def _forest(
    axes: Axes, estimates: list[Difference], rows: list[int], colour: str, marker: str, size: float
) -> None:
    low, high = floats(one.low for one in estimates), floats(one.high for one in estimates)
    axes.hlines(rows, low, high, color=colour, linewidth=1.4)
    for one, row in zip(estimates, rows, strict=True):
        face = colour if tables.is_significant(one) else "white"
        axes.plot(
            floats([one.value]),
            [row],
            marker,
            color=colour,
            markersize=size,
            markerfacecolor=face,
        )


# --- errors ------------------------------------------------------------------------------


def confusion(comparison: Comparison) -> Figure:
    """What is predicted for each right label: a panel an arm, and a task where labels differ."""
    names = {one.task: one.label_names for one in comparison.settings}
    titles = {
        one.task: place
        for one, place in zip(comparison.settings, setting_names(comparison), strict=True)
    }
    names[ALL] = comparison.settings[0].label_names
    keys = list(comparison.confusion[comparison.baseline])
    sizes = {key: len(names[key]) * _cell_size(names[key]) for key in keys}
    beside = max(len(head) for key in keys for head in tables.label_heads(names[key])[0])
    size = max(2.45, 0.9 + max(sizes.values())) + 0.055 * (min(beside, LONGEST) - 1)
    heights = {key: max(2.65, 1.1 + side) for key, side in sizes.items()}
    figure, panels = arm_panels(comparison, size, heights)
    for (key, arm), axes in panels.items():
        _shares(axes, np.array(comparison.confusion[arm][key], dtype=float), names[key])
        title = wrapped(arm, 31)
        axes.set_title(title if key == ALL else f"{titles[key]}\n{title}")
    set_title(figure, comparison, "What is predicted for each right label")
    over = "settings and seeds" if keys == [ALL] else "seeds"
    set_caption(
        figure,
        comparison,
        f"Share of the documents with a right label, over all {over}: rows add to 1.",
    )
    return figure


def _cell_size(labels: list[str]) -> float:
    """In inches; many labels leave no room for numbers."""
    return 0.34 if len(labels) <= NUMBERED else 0.15


def _shares(axes: Axes, counts: NDArray[np.float64], labels: list[str]) -> None:
    """Draw one table, coloured by each row's shares."""
    few = len(labels) <= NUMBERED
    of = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, of, out=np.full_like(counts, math.nan), where=of > 0)
    edges = np.arange(len(counts) + 1) + 0.5
    mesh = axes.pcolormesh(edges, edges, shares, cmap="Blues", norm=Normalize(0, 1))
    mesh.set(edgecolor="white", linewidth=1 if few else 0.3)
    for (row, column), share in np.ndenumerate(shares) if few else ():
        text = number(None if math.isnan(share) else share, 2)
        colour = "white" if share > 0.55 else "black"
        axes.text(column + 1, row + 1, text, ha="center", va="center", color=colour, fontsize=8)
    rows, columns = tables.label_heads(labels)
    axes.grid(visible=False)
    axes.set_xticks(np.arange(len(counts)) + 1, columns)
    axes.set_yticks(np.arange(len(counts)) + 1, [shortened(row) for row in rows])
    axes.set(
        aspect="equal",
        ylim=(len(counts) + 0.5, 0.5),
        xlabel="predicted label",
        ylabel="right label",
    )
    axes.tick_params(length=0)
    if not few:
        axes.tick_params(labelsize=6)
        axes.tick_params(axis="x", labelrotation=90)
    axes.spines[:].set_visible(False)


FIGURES: dict[str, Callable[[Comparison], Figure | None]] = {
    "accuracy_heatmap": accuracy_heatmap,
    "differences": differences,
    "reliability": reliability,
    "confusion": confusion,
    "entropy_by_layer": entropy_by_layer,
    "learning_curves": learning_curves,
}
