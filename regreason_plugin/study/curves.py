"""Learning curves: how well the labels of the validation rows are predicted on the way."""

from __future__ import annotations

import io
import statistics

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regreason_plugin.report.probe_plot import COLOURS, DASHES, MARKERS, STYLE
from regreason_plugin.study.choice import read_log
from regreason_plugin.study.plan import Condition, Plan

AXES = {
    "label_tokens_seen": "label tokens trained on",
    "target_tokens_seen": "target tokens trained on",
}


def draw(plan: Plan) -> bytes:
    """A PNG: a panel an x-axis and an order, a curve a condition, its mean over the seeds."""
    orders = ("label_first", "explanation_first")
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure((10, 8.4), layout="constrained")
        panels = figure.subplots(2, 2, sharey="row")
        for row, order in enumerate(orders):
            chosen = [condition for condition in plan.conditions if condition.order == order]
            for axes, (key, title) in zip(panels[row], AXES.items(), strict=True):
                for number, condition in enumerate(chosen):
                    _curve(axes, plan, condition, key, number)
                axes.set_xlabel(title)
                axes.set_title(f"{order.replace('_', ' ')}")
            panels[row][0].set_ylabel("accuracy on the validation labels")
            panels[row][1].set_xscale("log")
            panels[row][1].legend(fontsize=7.5, frameon=False, ncols=2)
        figure.suptitle(
            f"Learning curves, mean over {len(plan.seeds)} seeds (GENERATED data, tiny base model)"
        )
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def _curve(axes: Axes, plan: Plan, condition: Condition, key: str, number: int) -> None:
    by_step: dict[float, list[tuple[float, float]]] = {}
    for seed in plan.seeds:
        for line in read_log(plan.model(condition, seed)):
            # (Before the first step nothing was trained on, and a logarithm has no zero.)
            if "eval_label_acc" in line and line["step"]:
                by_step.setdefault(line["step"], []).append((line[key], line["eval_label_acc"]))
    points = [
        tuple(statistics.fmean(values) for values in zip(*found, strict=True))
        for _, found in sorted(by_step.items())
    ]
    axes.plot(
        [point[0] for point in points],
        [point[1] for point in points],
        color=COLOURS[number % len(COLOURS)],
        linestyle=DASHES[number % len(DASHES)],
        marker=MARKERS[number % len(MARKERS)],
        markersize=4,
        linewidth=1.3,
        label=condition.name,
    )
