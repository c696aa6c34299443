"""Entropies by layer as a picture: a panel a metric, a curve a model."""

from __future__ import annotations

from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from regreason_plugin.compare.probe_curves import (
    FORCED,
    PANELS,
    Curve,
    Estimate,
    Probes,
)
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import atomic_writer, together
from regreason_plugin.render.csv_file import csv_line
from regreason_plugin.render.style import SHADE, caption, layers, legend, png_and_svg, style

# --- the picture --------------------------------------------------------------------------


def draw(probes: Probes) -> tuple[bytes, bytes]:
    """Draw a panel a metric.

    In the SVG a curve has the id ``curve-<metric>-<number of the model>``, its band
    ``band-...``.

    Returns:
        A PNG and an SVG; the SVG is the same for the same input.
    """
    with style():
        return png_and_svg(_figure(probes))


def _figure(probes: Probes) -> Figure:
    # What is measured after an explanation and what is forced stand on rows of their own.
    groups = [
        group
        for forced in (False, True)
        if (group := [name for name in probes.curves if name.startswith(FORCED) == forced])
    ]
    # As wide as leaves a cell beside the panels for the legend.
    longest = max(map(len, groups))
    columns = 2 if longest in (1, 3) else 3
    rows = [len(group) // columns + (len(group) % columns > 0) for group in groups]
    size = (3.7 * columns, 2.75 * sum(rows) + 1.4)
    figure = Figure(size, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    grid = figure.add_gridspec(sum(rows), columns)
    free = None
    for number, group in enumerate(groups):
        top = sum(rows[:number])
        for place, name in enumerate(group):
            axes = figure.add_subplot(grid[top + place // columns, place % columns])
            _panel(axes, name, probes.curves[name])
            if probes.generative:
                forced = name.startswith(FORCED)
                when = "label forced at once" if forced else "after the model's own explanation"
                axes.set_title(f"{axes.get_title()}\n{when}")
        if free is None and len(group) % columns:
            free = grid[top + len(group) // columns, len(group) % columns]
    assert free is not None
    _legend(figure.add_subplot(free), next(iter(probes.curves.values())))
    generated = " (GENERATED data)" if "generated" in probes.origin else ""
    figure.suptitle(
        f"Entropy by layer, mean over {probes.settings}{generated}",
        fontsize=12,
    )
    caption(figure, probes.caption, 64 * columns)
    return figure


def _panel(axes: Axes, metric: str, curves: dict[str, Curve]) -> None:
    title, unit = PANELS[metric.removeprefix(FORCED)]
    by_layer = [
        [(estimate.mean, *estimate.interval) for estimate in curve.layers]
        for curve in curves.values()
    ]
    layers(axes, title, unit, by_layer, metric)


def _legend(axes: Axes, curves: dict[str, Curve]) -> None:
    bands: dict[str, Artist] = {
        "95 % interval": Patch(color="0.5", alpha=0.35),
        "middle blocks": Patch(color=SHADE),
    }
    legend(axes, curves, bands)


# --- files and the terminal ---------------------------------------------------------------


def to_csv(probes: Probes, *, spreadsheet_safe: bool = False) -> str:
    """The plotted numbers, a row a model, metric and layer; empty where undefined.

    Args:
        probes: What is plotted.
        spreadsheet_safe: As of `csv_line`.
    """
    rows: list[tuple[str | float | None, ...]] = [
        ("model", "metric", "layer", "depth", "mean", "se", "lower", "upper", "origin")
    ]
    for metric, curves in probes.curves.items():
        for model, curve in curves.items():
            for layer, estimate in enumerate(curve.layers):
                place = (model, metric, layer, layer / curve.blocks)
                rows.append((*place, *estimate, *estimate.interval, probes.origin))
    return "".join(csv_line(row, spreadsheet_safe=spreadsheet_safe) for row in rows)


def write(probes: Probes, out: Path, *, spreadsheet_safe: bool = False) -> list[Path]:
    """Write ``probes.png``, ``probes.svg`` and ``probes.csv``.

    Args:
        probes: What is plotted.
        out: The folder.
        spreadsheet_safe: As of `csv_line`.

    Returns:
        Their paths.

    Raises:
        UserError: ``out`` is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError("is a file; name a folder with --out", path=out)
    png, svg = draw(probes)
    contents = {
        out / "probes.png": png,
        out / "probes.svg": svg,
        out / "probes.csv": to_csv(probes, spreadsheet_safe=spreadsheet_safe).encode("utf-8"),
    }
    with together():
        for path, content in contents.items():
            with atomic_writer(path) as stream:
                stream.write(content)
    return list(contents)


def print_middles(probes: Probes) -> None:
    """Print each model's means over the middle blocks, as wide a table as they need."""
    table = Table(title=Text("Middle blocks: mean and 95 % interval"))
    table.add_column("model", no_wrap=True)
    for metric in probes.curves:
        table.add_column(f"{metric}_mid", justify="right", no_wrap=True)
    for model in next(iter(probes.curves.values())):
        cells = [_cell(curves[model].middle) for curves in probes.curves.values()]
        table.add_row(Text(model), *map(Text, cells))
    width = Console(width=1000).measure(table).maximum
    console = Console(width=max(Console().width, width))
    console.print(table)
    console.print(Text("\n".join(probes.caption)))


def _cell(estimate: Estimate) -> str:
    if estimate.mean is None:
        return "-"
    lower, upper = estimate.interval
    interval = "" if lower is None else f" [{lower:.3f}, {upper:.3f}]"
    return f"{estimate.mean:.3f}{interval}"
