"""Prints the sample sizes that find a difference."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from regreason_plugin.comparison.crossed_variance import ENOUGH_SEEDS
from regreason_plugin.comparison.sample_size import SampleSize
from regreason_plugin.core.printable import printable
from regreason_plugin.render.tables import Cells, interval
from regreason_plugin.render.terminal import print_table


def print_sample_sizes(
    sizes: Sequence[SampleSize], metric: str, difference: float, console: Console
) -> None:
    """Print a table of runs and documents for each arm, and what the numbers are about."""
    for size in sizes:
        title = (
            f"{size.arm}: to find a difference of {difference:g} in {metric} with a probability of "
            f"80 %. This pilot: {size.runs} run{'s' * (size.runs > 1)} per arm, "
            f"{size.documents:,} documents in {size.groups:,} groups; it finds "
            f"{interval(size.detectable)}."
        )
        body = [
            [f"{plan.runs}", _count(plan.groups), _count(plan.documents)] for plan in size.plans
        ]
        cells = Cells(["runs per arm", "groups", "documents"], body, [], words=0, fixed=3)
        print_table(console, cells, printable(title))
        if size.runs < ENOUGH_SEEDS:
            console.print(
                Text(
                    "With fewer than three runs per arm, the pilot does not show how much another "
                    "run would change: the numbers are about these models only."
                )
            )
    console.print(
        Text(
            "New documents and runs are assumed to vary as these do. A pilot of few documents or "
            "runs shows that only roughly."
        )
    )


def _count(count: int | None) -> str:
    return "no number is enough" if count is None else f"{count:,}"
