"""Draws a study's learning curves: accuracy on validation labels during training."""

from __future__ import annotations

import io
import statistics
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from regreason_plugin.core.training_curves import ACCURACIES, evaluated_accuracy, read_log
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.render.style import COLOURS, DASHES, MARKERS, style
from regreason_plugin.study.plan import Plan
from regreason_plugin.study.study_file import Condition

# Characters per line of an axis label.
WIDTH = 36
AXES = {
    "label_tokens_seen": "label tokens trained on",
    "target_tokens_seen": "target tokens trained on",
}


_TITLES = {
    "label_first": "label first",
    # The true explanation precedes the label here; after its own explanation a model does worse.
    "explanation_first": "explanation first, after the true explanation",
}


def draw(plan: Plan) -> bytes:
    """The learning curves as a PNG, with a panel for each order and each kind of x-axis.

    Each condition has one curve, its mean over the seeds. The arm sets the colour and the marker;
    conditions of the same arm differ in their dashes.
    """
    with style():
        orders = plan.study.orders
        figure = Figure((12, 4 * len(orders)), layout="constrained")
        panels = figure.subplots(len(orders), 2, sharey="row", squeeze=False)
        for row, order in enumerate(orders):
            chosen = [one for one in plan.study.conditions if one.order == order]
            for axes, (key, name) in zip(panels[row], AXES.items(), strict=True):
                measured = ""
                for number, condition in enumerate(chosen):
                    dash = sum(one.arm == condition.arm for one in chosen[:number])
                    measured = _curve(axes, plan, condition, key, dash) or measured
                axes.set_xlabel(name)
                axes.set_title(_TITLES[order])
            panels[row][0].set_ylabel(fill(ACCURACIES.get(measured, ""), WIDTH))
            right = panels[row][1]
            right.set_xscale("log")
            # Plain numbers, because the style renders no mathematical text such as 10^3.
            right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            right.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            right.xaxis.set_minor_formatter(NullFormatter())
            right.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.suptitle(
            f"Learning curves of {plan.study.title}, mean over {len(plan.study.seeds)} seeds"
        )
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=130)
    return png.getvalue()


def _curve(axes: Axes, plan: Plan, condition: Condition, key: str, dash: int) -> str:
    """Draw the curve of one condition, and return its metric, a key of `ACCURACIES` or ``""``."""
    measured = ""
    by_step: dict[float, list[tuple[float, float]]] = {}
    for seed in plan.study.seeds:
        for line in read_log(plan.model(condition, seed)):
            # (The evaluation before the first step is at zero tokens, which a log axis lacks.)
            accuracy = evaluated_accuracy(line)
            if accuracy is not None and line["step"]:
                measured = accuracy[0]
                by_step.setdefault(line["step"], []).append((line[key], accuracy[1]))
    points = [
        tuple(statistics.fmean(values) for values in zip(*pairs, strict=True))
        for _, pairs in sorted(by_step.items())
    ]
    arm = list(ARMS).index(condition.arm)
    axes.plot(
        [point[0] for point in points],
        [point[1] for point in points],
        color=COLOURS[arm % len(COLOURS)],
        linestyle=DASHES[dash % len(DASHES)],
        marker=MARKERS[arm % len(MARKERS)],
        markersize=4,
        linewidth=1.3,
        label=condition.name.removesuffix("-explanation_first"),
    )
    return measured
