"""The curve figures of a comparison: entropies by layer, and learning curves."""

from __future__ import annotations

import statistics

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from regreason_plugin.comparison.comparison import Comparison
from regreason_plugin.comparison.learning_curves import curve_title
from regreason_plugin.core.layers import middle_blocks
from regreason_plugin.core.printable import one_line
from regreason_plugin.metrics.metric_names import LAYER_CURVES
from regreason_plugin.render.figure_panels import (
    new_figure,
    rows_and_columns,
    set_caption,
    set_title,
    wrapped,
)
from regreason_plugin.render.style import MIDDLE, SHADE, floats, legend, line_style


def entropy_by_layer(comparison: Comparison) -> Figure | None:
    """Draw one panel for each entropy, with one curve for each arm; None without entropies."""
    if not comparison.layers:
        return None
    # The additional panel holds the legend.
    rows, columns = rows_and_columns(len(comparison.layers) + 1, across=3)
    figure = new_figure(3.7 * columns, 1.4 + 2.75 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, metric in zip(grid.flat, comparison.layers, strict=False):
        draw_entropy(axes, comparison, metric)
    for axes in grid.flat[len(comparison.layers) :]:
        axes.set_axis_off()
    draw_entropy_legend(grid.flat[len(comparison.layers)], comparison)
    set_title(figure, comparison, "Entropy by layer")
    set_caption(
        figure,
        comparison,
        "Unweighted means over the settings. h: hidden state (D units) at the position that "
        "decides the label; N: number of prompt tokens.",
        _middle_blocks(comparison),
    )
    return figure


def entropy_title(metric: str) -> str:
    """The title of an entropy's panel."""
    return LAYER_CURVES.get(metric, (metric, ""))[0]


def draw_entropy(axes: Axes, comparison: Comparison, metric: str) -> None:
    """Draw one entropy by layer: a curve and its interval band for each arm.

    The middle blocks are shaded. In an SVG a curve has the id
    ``curve-<metric>-<number of the arm>`` and its band the id ``band-<metric>-<number>``.
    """
    axes.set_title(wrapped(entropy_title(metric), 36))
    axes.set_xlabel("depth (0 embeddings, 1 last block)")
    axes.set_ylabel(LAYER_CURVES.get(metric, ("", "entropy"))[1])
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    by_arm = comparison.layers[metric]
    curves = [by_arm[arm] for arm in (comparison.baseline, *comparison.arms)]
    for blocks in {len(curve) - 1 for curve in curves}:
        if middle := middle_blocks(blocks):
            # The shade extends half a block to either side, so that a single block is visible.
            ends = (middle[0] - 0.5) / blocks, (middle[-1] + 0.5) / blocks
            axes.axvspan(*ends, color=SHADE, linewidth=0, zorder=0)
    for number, curve in enumerate(curves):
        blocks = len(curve) - 1
        depth = [layer / blocks for layer in range(len(curve))]
        lower, upper = floats(one.low for one in curve), floats(one.high for one in curve)
        means = floats(one.value for one in curve)
        drawn = line_style(number)
        band = axes.fill_between(depth, lower, upper, color=drawn["color"], alpha=0.18, linewidth=0)
        band.set_gid(f"band-{metric}-{number}")
        # About eight markers for each curve; adjacent curves have theirs at different layers.
        step = max(1, blocks // 8)
        (line,) = axes.plot(depth, means, markevery=(number % step, step), **drawn)
        line.set_gid(f"curve-{metric}-{number}")


def draw_entropy_legend(axes: Axes, comparison: Comparison) -> None:
    """Draw the legend of the entropy panels: arms, interval band and middle blocks."""
    bands: dict[str, Artist] = {
        f"{100 * comparison.level:g} % interval": Patch(color=MIDDLE, alpha=0.35),
        "middle blocks": Patch(color=SHADE),
    }
    legend(axes, map(one_line, (comparison.baseline, *comparison.arms)), bands)


def _middle_blocks(comparison: Comparison) -> str:
    """The shaded blocks for each model depth; empty where no model has middle blocks."""
    depths = {len(one) - 1 for by_arm in comparison.layers.values() for one in by_arm.values()}
    middles = [
        f"{'-'.join(map(str, sorted({middle[0], middle[-1]})))} of {blocks}"
        for blocks in sorted(depths)
        if (middle := middle_blocks(blocks))
    ]
    return f"Shaded: the middle blocks, {', '.join(middles)}." if middles else ""


def learning_curves(comparison: Comparison) -> Figure | None:
    """Draw validation accuracy by target tokens trained on; None without training records."""
    if not any(comparison.curves.values()):
        return None
    figure = new_figure(9.0, 4.6)
    axes, legend_axes = figure.subplots(1, 2, width_ratios=[3, 1])
    draw_learning(axes, comparison)
    draw_learning_legend(legend_axes, comparison)
    set_title(figure, comparison, "Learning curves")
    set_caption(
        figure,
        comparison,
        "Thick line: the mean over an arm's seeds, where all were evaluated at the same token "
        "counts; otherwise each seed has a thick line.",
    )
    return figure


def draw_learning(axes: Axes, comparison: Comparison) -> None:
    """Draw each model's curve, and an arm's mean if its models have the same token counts."""
    for number, arm in enumerate((comparison.baseline, *comparison.arms)):
        curves = comparison.curves.get(arm, [])
        drawn = line_style(number)
        same = len({tuple(curve.tokens) for curve in curves}) == 1 and len(curves) > 1
        for curve in curves:
            thin = {"color": drawn["color"], "linewidth": 0.8, "alpha": 0.45}
            axes.plot(curve.tokens, curve.accuracy, **(thin if same else drawn))
        if same:
            by_step = zip(*(curve.accuracy for curve in curves), strict=True)
            axes.plot(curves[0].tokens, [statistics.fmean(step) for step in by_step], **drawn)
    axes.set(xlabel="target tokens trained on", ylabel=curve_title(comparison.curves))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def draw_learning_legend(axes: Axes, comparison: Comparison) -> None:
    """Draw the legend of the learning curves."""
    thin: dict[str, Artist] = {"one seed": Line2D([], [], color=MIDDLE, linewidth=0.8, alpha=0.6)}
    legend(axes, map(one_line, (comparison.baseline, *comparison.arms)), thin)
