"""What `regreason annotate` prints, and `regreason explain` while it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from regreason_plugin.annotate.config import AnnotateConfig
from regreason_plugin.annotate.cost_estimate import LanePlan
from regreason_plugin.annotate.lanes import Tally
from regreason_plugin.annotate.progress_table import shown
from regreason_plugin.annotate.run import Finished
from regreason_plugin.annotate.store import OK
from regreason_plugin.cli.console import console, progress, say


class Watcher:
    """Shows a live table while raters are asked, and then a progress line.

    Args:
        where: The console they are shown on.
        ratings: How many ratings there will be, if that is known.
    """

    def __init__(self, where: Console, ratings: int | None) -> None:
        self._where = where
        self._ratings = ratings

    @contextmanager
    def asking(self, what: str, tallies: Sequence[Tally]) -> Iterator[None]:
        """Around the time in which raters are asked."""
        self._where.print(what, markup=False, highlight=False)
        with shown(tallies, self._where):
            yield

    @contextmanager
    def writing(self) -> Iterator[Callable[[], object]]:
        """Around the time in which ratings are written; yields what is told of each."""
        with progress(self._ratings) as advance:
            yield lambda: advance("write", 1)


def show_plan(plans: Sequence[LanePlan], store: Path, *, merging: bool = False) -> None:
    """What `--dry-run` found, and one whole prompt.

    Args:
        plans: One a rater.
        store: Where the store is or would be.
        merging: Whether explanations are to be merged, which is not in the plans.
    """
    if not plans:
        say("All raters are built-in rules: nothing is asked and nothing costs.")
        return
    table = Table(title="What would be asked", caption="tokens and cost are estimates")
    table.add_column("rater", no_wrap=True)
    for name in ("calls", "answered", "failed", "left", "tokens in", "tokens out", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [*plans, _sum(plans)] if len(plans) > 1 else plans
    for plan in rows:
        table.add_row(
            plan.name,
            f"{plan.total:,}",
            f"{plan.done:,}",
            f"{plan.failed:,}",
            f"{plan.left:,}",
            f"{plan.prompt_tokens:,}",
            f"{plan.answer_tokens:,}",
            "-" if plan.cost is None else f"{plan.cost:,.2f}",
        )
    # As wide as it needs to be: one cut by the terminal hides numbers.
    console.print(table, width=max(console.width, console.measure(table).maximum))
    if merging:
        say("Merging the explanations is not in it: one more call a conversation and axis.")
    if store.is_file():
        say(f"Store: {store}")
    say(f"\nA prompt of {plans[0].name}, whole:\n")
    say(plans[0].example)


def _sum(plans: Sequence[LanePlan]) -> LanePlan:
    costs = [plan.cost for plan in plans if plan.cost is not None]
    return LanePlan(
        "all",
        "",
        sum(plan.total for plan in plans),
        sum(plan.done for plan in plans),
        sum(plan.failed for plan in plans),
        sum(plan.left for plan in plans),
        sum(plan.prompt_tokens for plan in plans),
        sum(plan.answer_tokens for plan in plans),
        sum(costs) if costs else None,
    )


def show_finished(config: AnnotateConfig, file: Path, finished: Finished) -> int:
    """The summary.

    Returns:
        The command's exit code: 3 where the budget ended it.
    """
    if finished.cost is not None:
        say(f"Cost so far: {finished.cost:,.2f}")
    if finished.unaffordable:
        say(
            f"Stopped by the budget: {finished.unaffordable:,} calls are left, and no ratings "
            f"are written; all answers are in {config.store_path}."
        )
        say(f"Next: regreason annotate {file} with a higher --budget goes on from here")
        return 3
    say(f"{finished.ratings:,} ratings: {config.out}")
    for reason, number in finished.dropped.items():
        say(f"  {number:,} left out: {reason}")
    failed = {kind: number for kind, number in finished.calls.items() if kind != OK}
    if failed:
        named = ", ".join(f"{number:,} {kind}" for kind, number in sorted(failed.items()))
        say(f"  {sum(failed.values()):,} of {finished.calls.total():,} scores are missing: {named}")
        say(f"  regreason annotate {file} --retry-failed asks for those again")
    for path in finished.written[1:]:
        say(f"Written: {path}")
    say(f"Next: regreason build {config.out} --out DATA")
    return 0
