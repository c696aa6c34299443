"""Accuracy by confidence, beside what chance makes of a calibrated model."""

from __future__ import annotations

from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from regreason_plugin.comparison.comparison import ALL, Comparison
from regreason_plugin.core.numbers import number
from regreason_plugin.render.figure_panels import arm_panels, set_caption, set_title, wrapped
from regreason_plugin.render.style import BAR, MIDDLE, floats, legend, line_style

# The line on which accuracy equals confidence.
_EQUAL: dict[str, Any] = {"color": MIDDLE, "linestyle": ":", "linewidth": 1.0}


def reliability(comparison: Comparison) -> Figure:
    """Accuracy by confidence, a panel an arm."""
    figure, panels = arm_panels(comparison, 2.6, {ALL: 2.75})
    for (_, arm), axes in panels.items():
        draw_reliability(axes, comparison, arm)
        axes.set_title(f"{wrapped(arm, 31)}\n{plain_error(comparison, arm)}".rstrip())
    set_title(figure, comparison, "Is a prediction as often right as it is confident?")
    set_caption(
        figure,
        comparison,
        "Confidence: probability of the predicted label. On the dotted line accuracy equals it; "
        "below it the model is overconfident. Shaded: where the accuracy lies 95 % of the time if "
        "the model is calibrated. Grey, on the same scale: share of the predictions. All settings "
        "and seeds together; the ECE is the mean of the settings' own, beside the mean that "
        "calibrated models of the same confidences would have.",
    )
    return figure


def plain_error(comparison: Comparison, arm: str) -> str:
    """An arm's plain calibration error and a calibrated model's; empty where it has none."""
    ece = comparison.pooled_scores[arm].get("ece")
    if ece is None:
        return ""
    calibrated = (
        f" ({number(ece.if_calibrated)} if calibrated)" if ece.if_calibrated is not None else ""
    )
    return f"ECE {number(ece.value)}{calibrated}"


def draw_reliability(axes: Axes, comparison: Comparison, arm: str) -> None:
    """Draw one arm's accuracy by confidence, a calibrated model's, and the bins' shares."""
    bins = comparison.reliability[arm]
    total = sum(one.count for one in bins)
    shares = [one.count / total if total else 0 for one in bins]
    edges = [one.low for one in bins]
    widths = [one.high - one.low for one in bins]
    axes.bar(edges, shares, widths, align="edge", color=BAR, edgecolor="white")
    axes.plot([0, 1], [0, 1], **_EQUAL)
    known = [one for one in bins if one.count]
    drawn = {**line_style([comparison.baseline, *comparison.arms].index(arm)), "linestyle": "-"}
    # From edge to edge of each bin, and then a gap.
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
    """Say in a panel of its own what one arm's shows; line and shade are in the arm's colour."""
    drawn = {**line_style(0), "linestyle": "-"}
    shown: dict[str, Artist] = {
        "accuracy at this confidence": Line2D([], [], **drawn),
        "where it lies 95 % of the time\nif the model is calibrated": Patch(
            **_band(drawn["color"])
        ),
        "accuracy equal to confidence": Line2D([], [], **_EQUAL),
        "share of the predictions": Patch(color=BAR),
    }
    legend(axes, [], shown)


def _band(colour: str) -> dict[str, Any]:
    return {"facecolor": colour, "alpha": 0.25, "linewidth": 0}
