"""Draws a comparison as figures, and writes each as PNG and SVG."""

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

from regreason_plugin.comparison.comparison import (
    ALL,
    Comparison,
    Difference,
    run_noun,
    setting_noun,
)
from regreason_plugin.comparison.finding_words import (
    is_found,
    margin_text,
    primary_line,
)
from regreason_plugin.core.numbers import number
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.render import tables
from regreason_plugin.render.curve_figures import entropy_by_layer, learning_curves
from regreason_plugin.render.figure_panels import (
    LONGEST,
    arm_panels,
    new_figure,
    pooled_settings,
    rows_and_columns,
    set_caption,
    set_title,
    setting_name,
    short_difference,
    shortened,
    wrapped,
)
from regreason_plugin.render.reliability_figure import reliability
from regreason_plugin.render.style import (
    FAINT,
    MIDDLE,
    SHADE,
    floats,
    line_style,
    style,
)

FORMATS: dict[str, dict[str, Any]] = {"png": {"dpi": 200}, "svg": {"metadata": {"Date": None}}}
NOTHING = Difference(value=None)
# The cells of a confusion matrix hold numbers if there are at most this many labels.
NUMBERED = 20
# The largest number of tasks, each with its own labels, whose confusion matrices are drawn.
MOST_MATRICES = 12


def write_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Write every figure that the comparison has numbers for.

    The same comparison gives the same bytes.

    Returns:
        The paths of the files.
    """
    paths = []
    with style():
        for name, draw in FIGURES.items():
            figure = draw(comparison)
            if figure is None:
                continue
            # The layout is computed once, so that both files have the same.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for suffix, options in FORMATS.items():
                paths.append(folder / f"{name}.{suffix}")
                with atomic_writer(paths[-1]) as stream:
                    figure.savefig(stream, format=suffix, **options)
    return paths


# --- settings -----------------------------------------------------------------------------


def accuracy_heatmap(comparison: Comparison) -> Figure:
    """Draw the main metric by setting and arm; only differences that are found have a colour."""
    c, arms, metric = comparison, comparison.arms, comparison.main
    everyone = (c.baseline, *arms)
    settings = pooled_settings(c)
    rows = [setting.task for setting in settings]
    by_row = [[c.differences[arm][task].get(metric, NOTHING) for arm in arms] for task in rows]
    by_row.append([c.pooled[arm].get(metric, NOTHING) for arm in arms])
    scores = [[c.scores[arm][task].get(metric) for arm in everyone] for task in rows]
    scores.append([c.pooled_scores[arm].get(metric) for arm in everyone])
    # A colour is a claim, so a cell without a finding gets none.
    values = np.array(
        [[one.value if is_found(one) else math.nan for one in row] for row in by_row], dtype=float
    )
    # A gap sets the pooled row apart.
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
        base, *others = (number(score.value if score else None) for score in row_scores)
        axes.text(0.5, top + 0.5, base, ha="center", va="center")
        for column, (score, one, known) in enumerate(zip(others, row, difference, strict=True)):
            dark = abs(known) > 0.6 * limit
            axes.text(
                column + 1.5,
                top + 0.5,
                f"{score}\n{short_difference(one)}",
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
    axes.set_yticks(np.array(tops) + 0.5, [*map(setting_name, settings), "pooled"])
    axes.spines[:].set_visible(False)
    shrink, aspect = (0.9, 10) if len(rows) < 9 else (0.5, 25)
    bar = figure.colorbar(ScalarMappable(norm, "RdBu"), ax=axes, shrink=shrink, aspect=aspect)
    bar.set_label(wrapped(f"difference to {comparison.baseline}, where one is found", 40))
    bar.outline.set_visible(False)
    title = tables.title_of(comparison, metric)
    set_title(figure, comparison, f"{title[0].upper()}{title[1:]} by {setting_noun(comparison)}")
    set_caption(
        figure,
        comparison,
        primary_line(comparison, str),
        f"Below each score: its difference to {comparison.baseline}. A cell is coloured where a "
        f"difference is found. {' '.join(tables.mark_legend(comparison))}",
    )
    return figure


def differences(comparison: Comparison) -> Figure:
    """Draw a forest plot: a panel for each arm, a line for each setting, the pooled one last."""
    panels, metric = len(comparison.arms), comparison.main
    rows, columns = rows_and_columns(panels)
    figure = new_figure(
        2.2 + 2.5 * columns, 1.6 + rows * (1.1 + 0.19 * (len(pooled_settings(comparison)) + 2))
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for arm, axes in zip(comparison.arms, grid.flat, strict=False):
        draw_differences(axes, comparison, arm)
        pooled = tables.difference(comparison.pooled[arm].get(metric))
        wins = f"\nwins: {tables.wins(comparison, arm)}" if metric == "acc" else ""
        axes.set_title(f"{wrapped(arm, 31)}\n{pooled}{wins}", loc="left", fontsize=8.5)
    for axes in grid.flat[panels:]:
        axes.set_axis_off()
    # A panel above an empty place shows the numbers of its x-axis.
    for axes in grid.flat[max(0, panels - columns) : panels]:
        axes.tick_params(labelbottom=True)
    title, scope = tables.title_of(comparison, metric), tables.interval_scope(comparison)
    set_title(
        figure, comparison, f"{title[0].upper()}{title[1:]}: difference to {comparison.baseline}"
    )
    noun = setting_noun(comparison)
    wins = f"wins: {noun}s with a positive difference, however small." if metric == "acc" else ""
    margin = margin_text(comparison)
    set_caption(
        figure,
        comparison,
        primary_line(comparison, str),
        f"Lines: {scope}." if scope else "",
        f"Filled: {tables.STAR}. Shaded: differences within ±{margin}. {wins}",
        " ".join(tables.mark_legend(comparison)),
    )
    return figure


def draw_differences(axes: Axes, comparison: Comparison, arm: str) -> None:
    """Draw the panel of one arm in the forest plot."""
    settings, metric = pooled_settings(comparison), comparison.main
    count = len(settings)
    by_task = comparison.differences[arm]
    by_setting = [by_task[one.task].get(metric, NOTHING) for one in settings]
    colour = _arm_colour(comparison, arm)
    axes.axhline(count + 0.25, color=FAINT, linewidth=0.6)
    _forest(axes, by_setting, list(range(count)), colour, "o", 5)
    pooled = comparison.pooled[arm].get(metric, NOTHING)
    _forest(axes, [pooled], [count + 1], colour, "D", 7)
    names = [*map(setting_name, settings), "pooled"]
    _forest_scales(axes, comparison, [*range(count), count + 1], names)


def draw_pooled_differences(axes: Axes, comparison: Comparison) -> None:
    """Draw one line for each arm: its pooled difference."""
    for row, arm in enumerate(comparison.arms):
        pooled = comparison.pooled[arm].get(comparison.main, NOTHING)
        _forest(axes, [pooled], [row], _arm_colour(comparison, arm), "D", 7)
    names = [wrapped(arm, 31) for arm in comparison.arms]
    _forest_scales(axes, comparison, list(range(len(names))), names)


def draw_primary(axes: Axes, comparison: Comparison) -> None:
    """Draw the difference of the primary question, in black instead of the arm's colour."""
    if comparison.primary is None:
        return
    arm, metric = comparison.primary.arm, comparison.primary.metric
    _forest(axes, [comparison.pooled[arm][metric]], [0], "black", "D", 8)
    _forest_scales(axes, comparison, [0], [""])
    axes.spines["left"].set_visible(False)


def _arm_colour(comparison: Comparison, arm: str) -> str:
    colour: str = line_style(1 + comparison.arms.index(arm))["color"]
    return colour


def _forest_scales(axes: Axes, comparison: Comparison, rows: list[int], names: list[str]) -> None:
    """Draw the line of no difference, the margin around it, and the names of the rows."""
    margin = comparison.margin
    axes.axvspan(-margin, margin, color=SHADE, linewidth=0, zorder=0)
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
        face = colour if is_found(one) else "white"
        axes.plot(
            floats([one.value]),
            [row],
            marker,
            color=colour,
            markersize=size,
            markerfacecolor=face,
        )


# --- errors ------------------------------------------------------------------------------


def confusion(comparison: Comparison) -> Figure | None:
    """Draw a confusion matrix for each arm, and for each task where tasks differ in labels.

    Returns:
        None without labels, or with so many different tasks that nobody would look at all of them.
    """
    keys = list(comparison.confusion[comparison.baseline])
    if not 0 < len(keys) <= MOST_MATRICES:
        return None
    names = {one.task: one.label_names for one in comparison.settings}
    titles = {one.task: setting_name(one) for one in comparison.settings}
    names[ALL] = comparison.settings[0].label_names
    sizes = {key: len(names[key]) * _cell_size(names[key]) for key in keys}
    longest_head = max(len(head) for key in keys for head in tables.label_heads(names[key])[0])
    size = max(2.45, 0.9 + max(sizes.values())) + 0.055 * (min(longest_head, LONGEST) - 1)
    heights = {key: max(2.65, 1.1 + side) for key, side in sizes.items()}
    figure, panels = arm_panels(comparison, size, heights)
    for (key, arm), axes in panels.items():
        _shares(axes, np.array(comparison.confusion[arm][key], dtype=float), names[key])
        title = wrapped(arm, 31)
        axes.set_title(title if key == ALL else f"{titles[key]}\n{title}")
    set_title(figure, comparison, "Predicted labels for each right label")
    over = f"{run_noun(comparison)}s"
    if keys == [ALL]:
        over = f"{setting_noun(comparison)}s and {over}"
    set_caption(
        figure,
        comparison,
        f"Shares of the documents with the same right label, over all {over}; each row sums to 1.",
    )
    return figure


def _cell_size(labels: list[str]) -> float:
    """Side of a cell in inches; with many labels the cells are too small for numbers."""
    return 0.34 if len(labels) <= NUMBERED else 0.15


def _shares(axes: Axes, counts: NDArray[np.float64], labels: list[str]) -> None:
    """Draw one confusion matrix, coloured by the shares within each row."""
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
