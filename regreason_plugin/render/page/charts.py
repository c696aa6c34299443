"""The page's charts as inline SVG, coloured by its style sheet alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from regreason_plugin.compare.comparison import Bin, Curve, Interval
from regreason_plugin.compare.learning_curves import what_is_drawn
from regreason_plugin.core.layers import middle_blocks
from regreason_plugin.render.page.numbers import (
    count,
    limits,
    plain,
    tick_text,
    ticks,
)

# Colours and dashes have no common divisor, so that no line looks like another.
COLOURS = 9
DASHES = 4


def element(name: str, *inside: object, **attributes: object) -> Markup:
    """An SVG element; what is no markup yet is escaped.

    An attribute's underscores become hyphens; that at the end of ``class_`` is dropped.
    """
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
    )
    body = Markup("").join(escape(part) for part in inside)
    start = Markup("<") + Markup(name) + given  # noqa: S704 - names are this module's own
    return start + Markup(">") + body + Markup("</{}>").format(name)


def _short(value: object) -> object:
    """Tenths of a pixel are enough."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def picture(width: float, height: float, title: str, text: str, *inside: object) -> Markup:
    """A whole drawing, which says what it shows to who cannot see it."""
    return element(
        "svg",
        element("title", title),
        element("desc", text),
        *inside,
        class_="chart",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
    )


def look(number: int) -> str:
    """The classes of an arm's colour and dash."""
    return f"c{number % COLOURS} d{number % DASHES}"


# --- forest -------------------------------------------------------------------------------


def forest_mark(interval: Interval, ends: tuple[float, float]) -> Markup:
    """An interval on a row of its own, as wide as its cell: places are shares of it."""
    zero = _place(0, ends)
    parts = [element("line", x1=zero, x2=zero, y1="-10%", y2="110%", class_="zero")]
    low, high = interval.low, interval.high
    if low is not None and high is not None:
        clear = " clear" if low > 0 or high < 0 else ""
        parts.append(
            element(
                "line", x1=_place(low, ends), x2=_place(high, ends), y1="50%", y2="50%",
                class_="range" + clear,
            )
        )  # fmt: skip
    if interval.value is not None:
        parts.append(
            element("circle", cx=_place(interval.value, ends), cy="50%", r=4, class_="point")
        )
    # The numbers stand in the next cell.
    return element("svg", *parts, class_="mark", aria_hidden="true")


def forest_axis(ends: tuple[float, float]) -> Markup:
    """The scale below the rows."""
    parts: list[Markup] = []
    shown = ticks(*ends, about=5)
    for number, value in enumerate(shown):
        place = _place(value, ends)
        # Every second one has no room on a phone; zero stays.
        kind = "middle minor" if (number - shown.index(0)) % 2 else "middle"
        parts += [
            element("line", x1=place, x2=place, y1=0, y2=5, class_="axis"),
            element("text", tick_text(value, sign=True), x=place, y=18, class_=kind),
        ]
    return element("svg", *parts, class_="mark scale", aria_hidden="true")


def _place(value: float, ends: tuple[float, float]) -> str:
    return f"{100 * (value - ends[0]) / (ends[1] - ends[0]):.2f}%"


# --- charts with two axes -----------------------------------------------------------------


class Axes(NamedTuple):
    """A rectangle with a scale on two sides.

    Attributes:
        x: The ends of the horizontal scale.
        y: The ends of the vertical scale.
        box: Left, top, right and bottom, in pixels.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    box: tuple[float, float, float, float]

    def across(self, value: float) -> float:
        """Pixels from the left."""
        left, _, right, _ = self.box
        return left + (right - left) * (value - self.x[0]) / (self.x[1] - self.x[0])

    def down(self, value: float) -> float:
        """Pixels from the top."""
        _, top, _, bottom = self.box
        return bottom - (bottom - top) * (value - self.y[0]) / (self.y[1] - self.y[0])

    def points(self, pairs: Iterable[tuple[float, float]]) -> str:
        """Places of a line's corners."""
        return " ".join(f"{self.across(x):.1f},{self.down(y):.1f}" for x, y in pairs)

    def frame(self, x_title: str, y_title: str) -> Markup:
        """The scales with their ticks, grid and titles."""
        left, top, right, bottom = self.box
        parts = []
        for value in ticks(*self.y):
            y = self.down(value)
            parts += [
                element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"),
                element("text", tick_text(value), x=left - 6, y=y + 4, class_="end"),
            ]
        for value in ticks(*self.x):
            parts.append(
                element("text", tick_text(value), x=self.across(value), y=bottom + 15,
                        class_="middle")
            )  # fmt: skip
        middle = (left + right) / 2
        parts += [
            element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"),
            element("text", x_title, x=middle, y=bottom + 32, class_="middle title"),
            element("text", y_title, x=left - 34.0, y=top - 8.0, class_="title"),
        ]
        return Markup("").join(parts)


def reliability(arm: str, bins: Sequence[Bin]) -> Markup:
    """Accuracy by confidence, and below it how many answers each bar is of."""
    axes = Axes((0, 1), (0, 1), (40, 22, 250, 202))
    counts = Axes((0, 1), (0, max([b.count for b in bins], default=0) or 1), (40, 250, 250, 290))
    bars: list[Markup] = []
    below: list[Markup] = []
    for part in bins:
        if not part.count or part.accuracy is None or part.confidence is None:
            continue
        words = (
            f"confidence {plain(part.low, 2)} to {plain(part.high, 2)}: {count(part.count)} "
            f"answers, mean confidence {plain(part.confidence)}, accuracy {plain(part.accuracy)}"
        )
        left, width = (
            axes.across(part.low) + 0.5,
            axes.across(part.high) - axes.across(part.low) - 1,
        )
        for chart, value, into in ((axes, part.accuracy, bars), (counts, part.count, below)):
            top = chart.down(value)
            into.append(
                element("rect", element("title", words), x=left, width=width, y=top,
                        height=chart.box[3] - top, class_="bar")
            )  # fmt: skip
        x, right, wrong = (axes.across(part.confidence), axes.down(part.accuracy),
                           axes.down(part.confidence))  # fmt: skip
        bars.append(element("line", x1=x, x2=x, y1=right, y2=wrong, class_="off"))
    diagonal = element(
        "line", x1=axes.across(0), x2=axes.across(1), y1=axes.down(0), y2=axes.down(1),
        class_="ideal",
    )  # fmt: skip
    most = counts.y[1] if below else 0
    foot = [
        element("line", x1=40, x2=250, y1=290, y2=290, class_="axis"),
        element("text", count(int(most)), x=34, y=258, class_="end"),
        element("text", "answers", x=6, y=243),
    ]
    return picture(
        260, 298, f"Reliability of {arm}",
        "Accuracy by confidence in bars; on the diagonal the two are equal. "
        "Below, the number of answers in each bar.",
        axes.frame("confidence", "accuracy"), *bars, diagonal, *below, *foot,
    )  # fmt: skip


def layers(title: str, unit: str, curves: dict[str, list[Interval]], order: list[str]) -> Markup:
    """One entropy by depth, a line with its interval an arm.

    Args:
        title: Of the metric.
        unit: Of its values.
        curves: By arm; index 0 the embeddings.
        order: All arms, which decides their colours.
    """
    everything = [v for curve in curves.values() for i in curve for v in (i.value, i.low, i.high)]
    axes = Axes((0, 1), limits(everything), (52, 22, 370, 212))
    parts: list[Markup] = []
    for blocks in sorted({len(curve) - 1 for curve in curves.values()}):
        if middle := middle_blocks(blocks):
            start, end = (middle[0] - 0.5) / blocks, (middle[-1] + 0.5) / blocks
            x = axes.across(max(start, 0))
            parts.append(
                element("rect", x=x, y=22, width=axes.across(min(end, 1)) - x, height=190,
                        class_="shade")
            )  # fmt: skip
    bands, lines = [], []
    for arm, curve in curves.items():
        depth = [index / max(len(curve) - 1, 1) for index in range(len(curve))]
        number = order.index(arm)
        for run in _known(depth, curve):
            band = [(x, i.low) for x, i in run if i.low is not None]
            band += [(x, i.high) for x, i in reversed(run) if i.high is not None]
            if len(band) == 2 * len(run):
                bands.append(
                    element("polygon", points=axes.points(band), class_=f"band {look(number)}")
                )
            lines.append(
                _line(axes, [(x, i.value or 0.0) for x, i in run], arm, f"line {look(number)}")
            )
    return picture(
        384, 250, title, f"{title} by depth for {', '.join(curves)}; the middle blocks are shaded.",
        *parts, axes.frame("depth (0 embeddings, 1 last block)", unit), *bands, *lines,
    )  # fmt: skip


def _known(depth: list[float], curve: Sequence[Interval]) -> list[list[tuple[float, Interval]]]:
    """The stretches of a curve between its undefined points."""
    runs: list[list[tuple[float, Interval]]] = [[]]
    for x, interval in zip(depth, curve, strict=True):
        if interval.value is None:
            runs.append([])
        else:
            runs[-1].append((x, interval))
    return [run for run in runs if run]


def _line(axes: Axes, pairs: Sequence[tuple[float, float]], name: str, kind: str) -> Markup:
    """A line, or a dot where it is of a single point."""
    title = element("title", name)
    if len(pairs) == 1:
        (x, y), *_ = pairs
        return element("circle", title, cx=axes.across(x), cy=axes.down(y), r=3,
                       class_=f"{kind} dot")  # fmt: skip
    return element("polyline", title, points=axes.points(pairs), class_=kind)


def learning(arm: str, number: int, curves: dict[str, list[Curve]], baseline: str) -> Markup:
    """An arm's learning curves, a line a seed, over those of the baseline.

    Args:
        arm: Its name.
        number: Its place, which decides the colour.
        curves: Of all arms, which share the scales.
        baseline: The arm to draw behind.
    """
    all_curves = [curve for arms in curves.values() for curve in arms]
    most = max([tokens for curve in all_curves for tokens in curve.tokens], default=1)
    axes = Axes(
        (0, max(most, 1) * 1.03),
        limits([v for curve in all_curves for v in curve.accuracy]),
        (44, 22, 270, 162),
    )
    lines = []
    for name in [baseline, arm] if arm != baseline else [arm]:
        kind = f"line solid {'ghost' if name != arm else look(number)}"
        for curve in curves.get(name, []):
            if curve.tokens:
                pairs = list(zip(curve.tokens, curve.accuracy, strict=True))
                lines.append(_line(axes, pairs, f"{name}, seed {curve.seed}", kind))
    return picture(
        284, 200, f"Learning curves of {arm}",
        f"{what_is_drawn(curves)} by target tokens seen, a line a seed.",
        axes.frame("target tokens seen", "share predicted"), *lines,
    )  # fmt: skip
