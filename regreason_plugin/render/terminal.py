"""A comparison in a terminal: the verdict first, then the tables."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.padding import Padding
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

from regreason_plugin.comparison.comparison import Comparison
from regreason_plugin.comparison.finding_words import main_metric
from regreason_plugin.render import tables
from regreason_plugin.render.tables import Cells, printable

# Characters of a name before it is broken: as many as a difference has with its interval.
NAME = 26


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print it; a name from outside is neither markup nor moves the cursor.

    The tables are as wide as they need: a cut one hides numbers. Where the terminal is too
    narrow, they come in parts of as many arms as it has room for.
    """
    for answer in comparison.answers:
        verdict = (printable(answer.question), "bold"), "  ", (printable(answer.short), "cyan")
        console.print(Text.assemble(*verdict))
        for sentence in answer.sentences:
            console.print(Padding(Text(printable(sentence)), (0, 0, 0, 2), expand=False))
        console.print()
    baseline, metric = comparison.baseline, tables.title_of(main_metric(comparison))
    print_table(console, tables.arms(comparison), f"Arms: {metric}, means over the settings.")
    title = f"By setting: {metric} of {baseline}, and differences to it."
    print_table(console, tables.by_setting(comparison), f"{title} {tables.caption(comparison)}")
    if contrasts := tables.contrasts(comparison):
        print_table(console, contrasts, f"Arm of the row minus that of the column: {metric}.")
    title = f"Means over the settings of {baseline}, and differences to them."
    print_table(console, tables.pooled(comparison), title)
    costs = tables.costs(comparison)
    if costs.body:
        print_table(console, costs, tables.about_costs(comparison))
    if comparison.generalisation:
        about = tables.about_generalisation(comparison)
        print_table(console, tables.generalisation(comparison), about)
    for setting in tables.own_settings(comparison):
        title = f"Precision / recall by label of {setting.title}"
        print_table(console, tables.by_label(comparison, setting), title)
    for line in (*tables.legend(comparison), *comparison.notes):
        console.print(Text(printable(line)))


def print_table(console: Console, cells: Cells, title: str) -> None:
    """Print a table under its title, in parts where the terminal is too narrow for it."""
    # A file or a pipe has no width, and its reader scrolls.
    room = console.width if console.is_terminal else _width(cells)
    for part in _parts(cells, room):
        console.print(Text(printable(title), style="italic"))
        # (A console prints no wider than itself, but for what is rendered already.)
        lines = console.render_lines(_table(part), console.options.update_width(_width(part)))
        console.print(SegmentLines(lines, new_lines=True), crop=False)
        console.print()


def _parts(cells: Cells, room: int) -> list[Cells]:
    """The arms' columns in as few parts as fit, each with all the columns before them."""
    arms = range(cells.fixed, len(cells.header))
    parts = [cells]
    for count in range(len(arms), 0, -1):
        parts = [cells.of(arms[start : start + count]) for start in range(0, len(arms), count)]
        if all(_width(part) <= room for part in parts):
            break
    return parts


def _width(cells: Cells) -> int:
    return Console(width=100_000).measure(_table(cells)).maximum


def _table(cells: Cells) -> Table:
    table = Table()
    for place, name in enumerate(cells.header):
        right = place >= cells.words
        # (As Text: a name with brackets is no markup.)
        heading = Text(textwrap.fill(printable(name), NAME))
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    previous = cells.body[0][0] if cells.body else ""
    for row in cells.body:
        # Between datasets, which have a row an axis.
        if row[0] != previous and cells.footer and cells.words > 1:
            table.add_section()
        previous = row[0]
        table.add_row(*_texts(row))
    table.add_section()
    for row in cells.footer:
        # (Only the row's name: a bold number would be a claim.)
        first, *others = _texts(row)
        first.stylize("bold")
        table.add_row(first, *others)
    return table


def _texts(row: list[str]) -> list[Text]:
    return [Text(printable(cell)) for cell in row]
