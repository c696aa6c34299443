"""`regreason explain`: explanations for the labels of a table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from regreason_plugin.cli.console import AddCommand, amount, errors, say

if TYPE_CHECKING:
    from regreason_plugin.annotate.explain import Explained


def add_command(command: AddCommand) -> None:
    """Add it to the parser."""
    parser = command("explain", _explain, "let language models say why each row has its label")
    parser.add_argument("task", type=Path, metavar="TASK.yml", help="of the table")
    parser.add_argument(
        "config", type=Path, metavar="CONFIG.yml", help="who is asked; `prompts` copies one"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the table to write, .jsonl"
    )
    parser.add_argument(
        "--task-out", type=Path, metavar="FILE", help="also a copy of TASK.yml that reads --out"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="calls, tokens and cost, and a prompt; ask nothing"
    )
    parser.add_argument(
        "--budget", type=amount, metavar="X", help="stop before the store has cost more"
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="ask again what failed in an earlier run"
    )


def _explain(args: argparse.Namespace) -> int:
    from regreason_plugin.annotate.config import read_explain_config
    from regreason_plugin.annotate.explain import (
        as_yaml,
        authors,
        changes,
        check_files,
        dry_run,
        explain,
        write_task,
    )
    from regreason_plugin.cli.annotate_progress import Watcher, show_plan
    from regreason_plugin.core.task_file import read_task

    task, config = read_task(args.task), read_explain_config(args.config)
    check_files(task, args.task, args.out, args.task_out)
    if args.dry_run:
        show_plan(
            dry_run(task, config, args.out, retry=args.retry_failed), config.store_path(args.out)
        )
        if len(config.raters) > 1:
            say("\nA later rater is asked only for what all before it have failed on.")
        return 0
    done = explain(
        task,
        config,
        args.out,
        Watcher(errors, None),
        retry=args.retry_failed,
        budget=args.budget,
    )
    if done.cost is not None:
        say(f"Cost so far: {done.cost:,.2f}")
    if done.unaffordable:
        say(
            f"Stopped by the budget: {done.unaffordable:,} calls are left, and no table is "
            f"written; all answers are in {config.store_path(args.out)}."
        )
        say("Next: the same command with a higher --budget goes on from here")
        return 3
    _show(done, args.out)
    built, by = args.task, authors(task, config, done)
    if args.task_out is not None:
        write_task(task, args.out, args.task_out, by)
        say(f"The task that reads it: {args.task_out}")
        built = args.task_out
    else:
        say(f"\nIn {args.task}, write in place of what stands there (--task-out makes a copy):\n")
        say(as_yaml(changes(task, args.out, args.task.parent, by)))
    if task.columns.explanation is None:
        say("To train with them, in arms.yml: regreason_arm: [label_only, explanation, shuffled]")
    remove = " --leaks remove" if done.leaking else ""
    say(f"Next: regreason build {built} --out runs/{task.name}/data{remove}")
    return 0


def _show(done: Explained, out: Path) -> None:
    explained = done.by.total() + done.given
    say(f"{done.rows:,} rows, {explained:,} with an explanation: {out}")
    if done.given:
        say(f"  {done.given:,} had one in the table and keep it")
    for name, number in done.by.items():
        say(f"  {number:,} explained by {name}")
    if done.cut:
        say(f"  {done.cut:,} were longer than max_words and are cut")
    if done.leaking:
        say(
            f"  {done.leaking:,} name a label, {done.own_label:,} their own: "
            "regreason build --leaks remove takes those sentences out"
        )
    if done.failed:
        named = ", ".join(f"{number:,} {kind}" for kind, number in sorted(done.failed.items()))
        say(f"  {done.failed.total():,} could not be explained: {named}")
        say("    build leaves them out of training; --retry-failed asks for them again")
