"""The figures on the page: each panel an SVG of its own, in the colours of the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from regreason_plugin.comparison.comparison import Comparison
from regreason_plugin.comparison.finding_words import main_metric, primary_line
from regreason_plugin.comparison.learning_curves import what_is_drawn
from regreason_plugin.metrics.metric_names import METRICS
from regreason_plugin.render import curve_figures, figures, reliability_figure
from regreason_plugin.render.figure_panels import new_figure
from regreason_plugin.render.style import BAR, COLOURS, FAINT, GRID, MIDDLE, SHADE, style

# Inches of a panel; a phone shows it at three quarters of its size.
WIDTH = 4.5
# What the page's style sheet calls a figure's colours.
THEME = {
    **{colour.lower(): f"var(--c{number})" for number, colour in enumerate(COLOURS)},
    "#000000": "currentColor",
    "#ffffff": "var(--back)",
    **{to_hex(grey): "var(--rule)" for grey in (FAINT, BAR, GRID)},
    to_hex(MIDDLE): "var(--soft)",
    to_hex(SHADE): "var(--z)",
}
Draw = Callable[..., None]


def charts(comparison: Comparison) -> dict[str, Any]:
    """The page's charts: one a section, or by arm or metric; none where there are no numbers."""
    c = comparison
    everyone = [c.baseline, *c.arms]
    names = ", ".join(everyone)
    metric = METRICS[main_metric(c)].title
    answered = [arm for arm in everyone if any(one.count for one in c.reliability.get(arm, []))]
    lines = 0.6 + 0.2 * sum(1 + len(arm) // 40 for arm in everyone)

    def each(
        draw: Draw, keys: Sequence[str], height: float, title: str, text: str
    ) -> dict[str, Markup]:
        return {
            key: chart(draw, (c, key), f"-{number}", height, title + key, text)
            for number, key in enumerate(keys)
        }

    def single(draw: Draw, height: float, title: str, text: str) -> Markup:
        return chart(draw, (c,), "", height, title, text)

    with style():
        return {
            "primary": single(
                figures.draw_primary,
                0.62,
                "The primary question",
                primary_line(c, str),
            )
            if c.primary
            else None,
            "pooled_forest": single(
                figures.draw_pooled_differences,
                0.7 + 0.3 * len(c.arms),
                f"Pooled differences in {metric}",
                f"The difference to {c.baseline} and its interval, a line an arm: {names}.",
            ),
            "forests": each(
                figures.draw_differences,
                c.arms,
                0.7 + 0.22 * (len(c.settings) + 2),
                f"Differences in {metric} of ",
                f"The difference to {c.baseline} and its interval, a line a setting, the pooled "
                "one last.",
            ),
            "reliability": each(
                reliability_figure.draw_reliability,
                answered,
                4.2,
                "Reliability of ",
                "Accuracy by confidence as a line; on the diagonal the two are equal. Shaded, "
                "where the accuracy of a calibrated model would lie. In bars, the share of the "
                "answers at each confidence.",
            ),
            "reliability_legend": single(
                reliability_figure.draw_reliability_legend,
                1.2,
                "Legend",
                "Of the reliability diagrams.",
            ),
            "layers": each(
                curve_figures.draw_entropy,
                list(c.layers),
                3.3,
                "By depth: ",
                f"A curve and its interval an arm: {names}; the middle blocks are shaded.",
            ),
            "layers_legend": single(curve_figures.draw_entropy_legend, lines, "Legend", names),
            "learning": single(
                curve_figures.draw_learning,
                3.3,
                "Learning curves",
                f"{what_is_drawn(c.curves)} by target tokens seen, a curve a model: {names}.",
            )
            if any(c.curves.values())
            else None,
            "learning_legend": single(curve_figures.draw_learning_legend, lines, "Legend", names),
        }


def chart(
    draw: Draw, arguments: tuple[Any, ...], number: str, height: float, title: str, text: str
) -> Markup:
    """A figure of one panel as inline SVG, without its title, which the page sets.

    Args:
        draw: What draws the panel: a function of the figures' modules.
        arguments: Its arguments after the axes.
        number: Which of its panels this is.
        height: In inches.
        title: What the chart shows, for who cannot see it.
        text: The same at length.
    """
    figure = new_figure(WIDTH, height, least=WIDTH)
    axes: Axes = figure.subplots()
    draw(axes, *arguments)
    axes.set_title("")
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return inline_svg(svg.getvalue(), draw.__name__ + number, title, text)


def inline_svg(svg: bytes, name: str, title: str, text: str) -> Markup:
    """Matplotlib's SVG as a part of a page whose policy lets no element have a style of its own.

    Args:
        svg: The file.
        name: The beginning of its ids, which no other chart of the page has.
        title: What it shows.
        text: The same at length.
    """
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own figure
    for element in list(root.iter()):
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):
                element.remove(child)
        element.tag = element.tag.rpartition("}")[2]
        attributes = dict(_attributes(element.items(), name))
        element.attrib.clear()
        element.attrib.update(attributes)
        element.text = element.text if (element.text or "").strip() else None
        element.tail = None
    del root.attrib["height"], root.attrib["version"]
    root.attrib |= {"class": "chart", "role": "img", "stroke-linejoin": "round"}
    for place, (tag, words) in enumerate((("title", title), ("desc", text))):
        child = ElementTree.Element(tag)
        child.text = words
        root.insert(place, child)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - all text escaped


def _attributes(attributes: Iterable[tuple[str, str]], name: str) -> Iterator[tuple[str, str]]:
    """What an element keeps: its style as attributes, and ids that are referred to."""
    for key, value in attributes:
        if key == "style":
            for part in value.split("; "):
                what, _, how = part.partition(": ")
                # The letters are the page's.
                if what != "font-family":
                    yield what, THEME.get(how, how)
        elif key == "id":
            # (Others than those of clips and markers only name groups.)
            if re.fullmatch(r"[a-z][0-9a-f]{10}", value):
                yield key, f"{name}-{value}"
        elif "#" in value:
            yield key.rpartition("}")[2], value.replace("#", f"#{name}-")
        else:
            yield key, " ".join(value.split())
