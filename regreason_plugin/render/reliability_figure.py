"""Reliability diagrams: accuracy by confidence, with the range of a calibrated model."""

from __future__ import annotations

from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from regreason_plugin.comparison.comparison import ALL, Comparison, run_noun, setting_noun
from regreason_plugin.core.numbers import number
from regreason_plugin.metrics.metric_names import CALIBRATED
from regreason_plugin.render.figure_panels import arm_panels, set_caption, set_title, wrapped
from regreason_plugin.render.style import BAR, MIDDLE, floats, legend, line_style

# The line on which accuracy equals confidence.
_EQUAL: dict[str, Any] = {"color": MIDDLE, "linestyle": ":", "linewidth": 1.0}


def reliability(comparison: Comparison) -> Figure:
    """Draw accuracy by confidence, a panel for each arm."""
    figure, panels = arm_panels(comparison, 2.6, {ALL: 2.75})
    for (_, arm), axes in panels.items():
        draw_reliability(axes, comparison, arm)
        axes.set_title(f"{wrapped(arm, 31)}\n{plain_error(comparison, arm)}".rstrip())
    noun, run = setting_noun(comparison), run_noun(comparison)
    set_title(figure, comparison, "Reliability: accuracy by confidence")
    set_caption(
        figure,
        comparison,
        "Confidence: probability of the predicted label. On the dotted line accuracy equals "
        "confidence; below it the model is overconfident. Shaded: the range in which the accuracy "
        "of a calibrated model lies 95 % of the time. Grey bars, on the same scale: share of the "
        f"predictions. All {noun}s and {run}s together. ECE: mean over the {noun}s; in brackets, "
        "the ECE expected of calibrated models with the same confidences.",
    )
    return figure


def plain_error(comparison: Comparison, arm: str) -> str:
    """The arm's ECE, plain and with its temperature; empty without an ECE.

    In brackets is the ECE expected of a calibrated model.
    """
    ece = comparison.pooled_scores[arm].get("ece")
    if ece is None:
        return ""
    calibrated = (
        f" ({number(ece.if_calibrated)} if calibrated)" if ece.if_calibrated is not None else ""
    )
    own = comparison.pooled_scores[arm].get(f"{CALIBRATED}ece")
    after = f"\nECE {number(own.value)} after its temperature" if own else ""
    return f"ECE {number(ece.value)}{calibrated}{after}"


def draw_reliability(axes: Axes, comparison: Comparison, arm: str) -> None:
    """Draw an arm's accuracy by confidence, the range of a calibrated model, and bin shares."""
    bins = comparison.reliability[arm]
    total = sum(one.count for one in bins)
    shares = [one.count / total if total else 0 for one in bins]
    edges = [one.low for one in bins]
    widths = [one.high - one.low for one in bins]
    axes.bar(edges, shares, widths, align="edge", color=BAR, edgecolor="white")
    axes.plot([0, 1], [0, 1], **_EQUAL)
    known = [one for one in bins if one.count]
    drawn = {**line_style([comparison.baseline, *comparison.arms].index(arm)), "linestyle": "-"}
    # The band spans each bin from edge to edge, with a gap (None) before the next bin.
    axes.fill_between(
        floats(edge for one in known for edge in (one.low, one.high, None)),
        floats(end for one in known for end in (one.band_low, one.band_low, None)),
        floats(end for one in known for end in (one.band_high, one.band_high, None)),
        **_band(drawn["color"]),
    )
    confidence = floats(one.confidence for one in known)
    axes.plot(confidence, floats(one.accuracy for one in known), **drawn)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="accuracy")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def draw_reliability_legend(axes: Axes, _: Comparison) -> None:
    """Draw the legend of the reliability diagrams, which has a separate panel."""
    drawn = {**line_style(0), "linestyle": "-"}
    shown: dict[str, Artist] = {
        "accuracy at this confidence": Line2D([], [], **drawn),
        "range of a calibrated model\n(95 % of the time)": Patch(**_band(drawn["color"])),
        "accuracy equal to confidence": Line2D([], [], **_EQUAL),
        "share of the predictions": Patch(color=BAR),
    }
    legend(axes, [], shown)


def _band(colour: str) -> dict[str, Any]:
    return {"facecolor": colour, "alpha": 0.25, "linewidth": 0}
