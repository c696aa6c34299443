"""Prints a comparison in a terminal: the verdict first, then the tables."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.padding import Padding
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

from regreason_plugin.comparison.comparison import Comparison, setting_noun
from regreason_plugin.core.printable import printable
from regreason_plugin.render import tables
from regreason_plugin.render.tables import Cells

# Names in headings are wrapped at this many characters: the width of a difference and interval.
NAME = 26


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a comparison; names from outside are never markup and cannot move the cursor.

    No table is cut, because that would hide numbers. If the terminal is too narrow for a table, it
    is printed in parts, each with as many arms as fit.
    """
    for answer in comparison.answers:
        verdict = (printable(answer.question), "bold"), "  ", (printable(answer.short), "cyan")
        console.print(Text.assemble(*verdict))
        for sentence in answer.sentences:
            console.print(Padding(Text(printable(sentence)), (0, 0, 0, 2), expand=False))
        console.print()
    noun = setting_noun(comparison)
    baseline, metric = comparison.baseline, tables.title_of(comparison, comparison.main)
    print_table(console, tables.arms(comparison), f"Arms: mean {metric} over the {noun}s.")
    title = f"By {noun}: {metric} of {baseline}, and each arm's difference to it."
    print_table(console, tables.by_setting(comparison), f"{title} {tables.caption(comparison)}")
    if comparison.task_groups:
        about = tables.about_task_groups(comparison)
        print_table(console, tables.task_groups(comparison), about)
    if contrasts := tables.contrasts(comparison):
        title = f"Differences between arms: {metric} of the row's arm minus the column's arm."
        print_table(console, contrasts, title)
    title = f"All metrics: means of {baseline} over the {noun}s, and each arm's differences."
    print_table(console, tables.pooled(comparison), title)
    costs = tables.costs(comparison)
    if costs.body:
        print_table(console, costs, tables.about_costs(comparison))
    if comparison.generalisation:
        about = tables.about_generalisation(comparison)
        print_table(console, tables.generalisation(comparison), about)
    for setting in tables.own_settings(comparison):
        title = f"Precision / recall by label of {tables.setting_title(setting)}"
        print_table(console, tables.by_label(comparison, setting), title)
    for line in (*tables.legend(comparison), *comparison.notes):
        console.print(Text(printable(line)))


def print_table(console: Console, cells: Cells, title: str) -> None:
    """Print a table below its title, in parts if the terminal is too narrow."""
    # A file or a pipe has no width limit, so its tables are never split.
    room = console.width if console.is_terminal else _width(cells)
    for part in _parts(cells, room):
        console.print(Text(printable(title), style="italic"))
        # (A console cuts at its own width, except for segments that are rendered already.)
        lines = console.render_lines(_table(part), console.options.update_width(_width(part)))
        console.print(SegmentLines(lines, new_lines=True), crop=False)
        console.print()


def _parts(cells: Cells, room: int) -> list[Cells]:
    """The table in as few parts as fit into ``room`` characters, each with all fixed columns."""
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
    for number, name in enumerate(cells.header):
        right = number >= cells.words
        # (As Text, so that brackets in a name are not parsed as markup.)
        heading = Text(textwrap.fill(printable(name), NAME))
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    previous = cells.body[0][0] if cells.body else ""
    for row in cells.body:
        # A line separates datasets, each of which has a row for each axis.
        if row[0] != previous and cells.footer and cells.words > 1:
            table.add_section()
        previous = row[0]
        table.add_row(*_texts(row))
    table.add_section()
    for row in cells.footer:
        # (Only the row's name is bold: a bold number would be a claim.)
        first, *others = _texts(row)
        first.stylize("bold")
        table.add_row(first, *others)
    return table


def _texts(row: list[str]) -> list[Text]:
    return [Text(printable(cell)) for cell in row]
