"""The page's charts: each panel is an inline SVG in the colours of the page's theme."""

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
from regreason_plugin.comparison.finding_words import primary_line
from regreason_plugin.comparison.learning_curves import curve_title
from regreason_plugin.render import curve_figures, figures, reliability_figure
from regreason_plugin.render.figure_panels import new_figure, pooled_settings
from regreason_plugin.render.style import BAR, COLOURS, FAINT, GRID, MIDDLE, SHADE, style
from regreason_plugin.render.tables import title_of

# Width of a panel in inches; a phone shows it at three quarters of its size.
WIDTH = 4.5
# By colour of a figure: its CSS value on the page, which depends on the theme.
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
    """The page's charts by section: one, or a dictionary by arm or metric; None without data."""
    c = comparison
    everyone = [c.baseline, *c.arms]
    names = ", ".join(everyone)
    metric = title_of(c, c.main)
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
                f"The difference to {c.baseline} and its interval, a line for each arm: {names}.",
            ),
            "forests": each(
                figures.draw_differences,
                c.arms,
                0.7 + 0.22 * (len(pooled_settings(c)) + 2),
                f"Differences in {metric} of ",
                f"The difference to {c.baseline} and its interval, a line for each setting, the "
                "pooled one last.",
            ),
            "reliability": each(
                reliability_figure.draw_reliability,
                answered,
                4.2,
                "Reliability of ",
                "Line: accuracy by confidence; on the diagonal the two are equal. Shaded: the "
                "range in which the accuracy of a calibrated model lies 95 % of the time. Bars: "
                "share of the predictions at each confidence.",
            ),
            "reliability_legend": single(
                reliability_figure.draw_reliability_legend,
                1.2,
                "Legend",
                "Legend of the reliability diagrams.",
            ),
            "layers": each(
                curve_figures.draw_entropy,
                list(c.layers),
                3.3,
                "By depth: ",
                f"A curve with its interval for each arm: {names}; the middle blocks are shaded.",
            ),
            "layers_legend": single(curve_figures.draw_entropy_legend, lines, "Legend", names),
            "learning": single(
                curve_figures.draw_learning,
                3.3,
                "Learning curves",
                f"{curve_title(c.curves)} by target tokens seen, a curve per model: {names}.",
            )
            if any(c.curves.values())
            else None,
            "learning_legend": single(curve_figures.draw_learning_legend, lines, "Legend", names),
        }


def chart(
    draw: Draw, arguments: tuple[Any, ...], number: str, height: float, title: str, text: str
) -> Markup:
    """A figure of one panel as inline SVG, without its title, which stands in the page's HTML.

    Args:
        draw: A function of the figures' modules that draws the panel.
        arguments: Arguments of ``draw`` after the axes.
        number: Suffix that makes the chart's ids unique among the charts of ``draw``.
        height: Height in inches.
        title: Title for screen readers.
        text: Description for screen readers.
    """
    figure = new_figure(WIDTH, height, least=WIDTH)
    axes: Axes = figure.subplots()
    draw(axes, *arguments)
    axes.set_title("")
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return inline_svg(svg.getvalue(), draw.__name__ + number, title, text)


def inline_svg(svg: bytes, name: str, title: str, text: str) -> Markup:
    """Matplotlib's SVG as an element of a page whose policy forbids inline styles.

    Args:
        svg: Content of the SVG file.
        name: Prefix of its ids, different from that of every other chart on the page.
        title: Title for screen readers.
        text: Description for screen readers.
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
    for position, (tag, words) in enumerate((("title", title), ("desc", text))):
        child = ElementTree.Element(tag)
        child.text = words
        root.insert(position, child)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - all text escaped


def _attributes(attributes: Iterable[tuple[str, str]], name: str) -> Iterator[tuple[str, str]]:
    """An element's attributes for the page: styles as attributes, and ids that are referred to."""
    for key, value in attributes:
        if key == "style":
            for part in value.split("; "):
                style_name, _, style_value = part.partition(": ")
                # Text has the page's font.
                if style_name != "font-family":
                    yield style_name, THEME.get(style_value, style_value)
        elif key == "id":
            # (Only ids of clip paths and markers are referred to; the others just name groups.)
            if re.fullmatch(r"[a-z][0-9a-f]{10}", value):
                yield key, f"{name}-{value}"
        elif "#" in value:
            yield key.rpartition("}")[2], value.replace("#", f"#{name}-")
        else:
            yield key, " ".join(value.split())
