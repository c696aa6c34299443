"""The commands `annotate` and `explain`, which ask language models."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from regreason_plugin.annotate.config import AnnotateConfig
from regreason_plugin.annotate.lanes import LanePlan
from regreason_plugin.annotate.run import Finished
from regreason_plugin.annotate.store import OK
from regreason_plugin.cli.console import amount, console, errors, say
from regreason_plugin.cli.rater_progress import ConsoleWatcher
from regreason_plugin.core.jsonl import count_lines
from regreason_plugin.core.paper import AXES, DATASETS
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.core.yaml_file import dump_yaml

if TYPE_CHECKING:
    from regreason_plugin.annotate.explain import Explained


def add_annotate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `annotate`."""
    parser.add_argument(
        "config",
        type=Path,
        metavar="CONFIG.yml",
        help="the conversations, the raters and the prompts; `regreason fetch prompts` writes one",
    )
    _add_asking(parser)


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `explain`."""
    parser.add_argument(
        "task", type=Path, metavar="TASK.yml", help="the task whose table needs explanations"
    )
    parser.add_argument(
        "config",
        type=Path,
        metavar="CONFIG.yml",
        help="the raters to ask; `regreason fetch prompts` writes one",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the table to write (.jsonl)"
    )
    parser.add_argument(
        "--task-out",
        type=Path,
        metavar="FILE",
        help="also write a copy of TASK.yml that reads --out",
    )
    _add_asking(parser)


def _add_asking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="ask nothing; print how many calls and tokens it takes, the cost and one prompt",
    )
    parser.add_argument(
        "--budget",
        type=amount,
        metavar="X",
        help="stop before the calls in the store have cost more than X, in the prices' currency",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="repeat the calls that failed in an earlier run"
    )


def run_annotate(args: argparse.Namespace) -> int:
    """Rate conversations with an ensemble of raters.

    Reads the conversations that CONFIG.yml names, asks every rater with every
    prompt, and writes the scores, the explanations and the aggregated label of
    each conversation to the file that `out` in CONFIG.yml names. Every answer is
    stored at once, so a stopped command continues where it stopped and no call is
    made twice. Exit code 3: the budget ended it.

    Example:
        regreason annotate annotation/annotate.yml --budget 50
    """
    from regreason_plugin.annotate.config import read_config
    from regreason_plugin.annotate.provenance import provenance_path
    from regreason_plugin.annotate.run import annotate, dry_run

    config = read_config(args.config)
    for file in (config.out, config.store_path, provenance_path(config.out)):
        check_not_input(file, [args.config, *config.conversations], "out in the config")
    if args.dry_run:
        plans = dry_run(config, retry=args.retry_failed)
        _show_plan(plans, config.store_path, merging=config.merge is not None)
        return 0
    rows = sum(map(count_lines, config.conversations)) * len(AXES)
    finished = annotate(
        config, ConsoleWatcher(errors, rows), retry=args.retry_failed, budget=args.budget
    )
    return _show_finished(config, args.config, finished)


def _show_plan(plans: Sequence[LanePlan], store: Path, *, merging: bool = False) -> None:
    """Print the result of `--dry-run` and one whole prompt.

    Args:
        plans: The planned calls of each rater.
        store: The path of the store of calls.
        merging: Whether explanations will be merged; those calls are not in the plans.
    """
    if not plans:
        say("All raters are built-in rules, so no calls are made and nothing costs money.")
        return
    table = Table(title="Planned calls", caption="tokens and cost are estimates")
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
    # As wide as the table needs: a table cut by the terminal hides numbers.
    console.print(table, width=max(console.width, console.measure(table).maximum))
    if merging:
        say(
            "Not included: merging explanations takes one more call for each conversation and axis."
        )
    if store.is_file():
        say(f"Store: {store}")
    say(f"\nOne whole prompt of {plans[0].name}:\n")
    say(plans[0].example)


def _sum(plans: Sequence[LanePlan]) -> LanePlan:
    names = ("total", "done", "failed", "left", "prompt_tokens", "answer_tokens")
    costs = [plan.cost for plan in plans if plan.cost is not None]
    return LanePlan(
        "all",
        **{name: sum(getattr(plan, name) for plan in plans) for name in names},
        cost=sum(costs) if costs else None,
    )


def _show_finished(config: AnnotateConfig, file: Path, finished: Finished) -> int:
    """Print the summary.

    Returns:
        The command's exit code: 3 where the budget ended it.
    """
    command = f"regreason annotate {file}"
    if _ended_by_budget(finished, "no ratings are", config.store_path, command):
        return 3
    say(f"{finished.ratings:,} ratings: {config.out}")
    for reason, number in finished.dropped.items():
        say(f"  {number:,} left out: {reason}")
    failed = Counter({kind: number for kind, number in finished.calls.items() if kind != OK})
    if failed:
        total = finished.calls.total()
        say(f"  {failed.total():,} of {total:,} scores are missing: {_by_kind(failed)}")
        say(f"  {command} --retry-failed repeats those calls")
    for path in finished.written[1:]:
        say(f"Written: {path}")
    if finished.rated.keys() <= DATASETS.keys():
        say(f"Next: regreason build {config.out} --out DATA")
    else:
        say(f"Next: regreason aggregate {config.out} --golden FILE")
    return 0


def _ended_by_budget(
    done: Finished | Explained, nothing_is: str, store: Path, command: str
) -> bool:
    if done.cost is not None:
        say(f"Cost so far: {done.cost:,.2f}")
    if done.unaffordable:
        say(
            f"Stopped by the budget: {done.unaffordable:,} calls are left and {nothing_is} "
            f"written yet; all answers so far are in {store}."
        )
        say(f"Next: {command} with a higher --budget continues from here")
    return done.unaffordable > 0


def _by_kind(failed: Counter[str]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in sorted(failed.items()))


def run_explain(args: argparse.Namespace) -> int:
    """Let language models explain why each row of a table has its label.

    Reads the table that TASK.yml names, asks the raters of CONFIG.yml, and writes
    the rows with their explanations to --out. A stopped command continues where it
    stopped and repeats no call. Exit code 3: the budget ended it.

    Example:
        regreason explain tickets/task.yml annotation/explain.yml --out tickets/explained.jsonl
    """
    from regreason_plugin.annotate.config import read_explain_config
    from regreason_plugin.annotate.explain import (
        authors,
        changes,
        check_files,
        dry_run,
        explain,
        write_task,
    )
    from regreason_plugin.core.task_file import read_task

    task, config = read_task(args.task), read_explain_config(args.config)
    check_files(task, args.task, args.out, args.task_out)
    if args.dry_run:
        _show_plan(
            dry_run(task, config, args.out, retry=args.retry_failed), config.store_path(args.out)
        )
        if len(config.raters) > 1:
            say("\nA later rater is asked only about rows on which all earlier raters failed.")
        return 0
    done = explain(
        task,
        config,
        args.out,
        ConsoleWatcher(errors, None),
        retry=args.retry_failed,
        budget=args.budget,
    )
    if _ended_by_budget(done, "no table is", config.store_path(args.out), "the same command"):
        return 3
    _show_explained(done, args.out)
    built, by = args.task, authors(task, config, done)
    if args.task_out is not None:
        write_task(task, args.out, args.task_out, by)
        say(f"The task that reads the new table: {args.task_out}")
        built = args.task_out
    else:
        say(f"\nReplace these keys in {args.task} (or use --task-out to write a copy):\n")
        say(dump_yaml(changes(task, args.out, args.task.parent, by)))
    if task.columns.explanation is None:
        say("To train with them, write in arms.yml:")
        say("  regreason_arm: [label_only, explanation, shuffled]")
    remove = " --leaks remove" if done.leaking else ""
    say(f"Next: regreason build {built} --out runs/{task.name}/data{remove}")
    return 0


def _show_explained(done: Explained, out: Path) -> None:
    explained = done.by.total() + done.given
    say(f"{done.rows:,} rows, {explained:,} with an explanation: {out}")
    if done.given:
        say(f"  {done.given:,} already had one in the table")
    for name, number in done.by.items():
        say(f"  {number:,} explained by {name}")
    if done.cut:
        say(f"  {done.cut:,} were cut to max_words")
    if done.leaking:
        say(
            f"  {done.leaking:,} explanations name a label, {done.own_label:,} the right one; "
            "regreason build --leaks remove takes those sentences out"
        )
    if done.failed:
        say(f"  {done.failed.total():,} could not be explained: {_by_kind(done.failed)}")
        say("    build leaves those rows out of training; --retry-failed repeats the calls")
