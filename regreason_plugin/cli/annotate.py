"""The commands `annotate` and `explain`, which ask language models."""

from __future__ import annotations

import argparse
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.table import Table

from regreason_plugin.annotate.asked_again import FAILED_STATES, AskedAgain, is_in_vain
from regreason_plugin.annotate.calls import OK
from regreason_plugin.annotate.config import AnnotateConfig, ExplainConfig
from regreason_plugin.annotate.lanes import LanePlan
from regreason_plugin.annotate.quality_alarm import ADVICE, advice, by_state
from regreason_plugin.annotate.run import Finished
from regreason_plugin.cli.console import amount, console, errors, positive, print_whole, say
from regreason_plugin.cli.rater_progress import ConsoleWatcher
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.jsonl import count_lines
from regreason_plugin.core.paper import AXES, DATASETS
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.core.yaml_file import dump_yaml

if TYPE_CHECKING:
    from regreason_plugin.annotate.explain import Explained

_IN_VAIN = "    but not unusable answers at temperature 0, unless you name their states"


def add_annotate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `annotate`."""
    parser.add_argument(
        "config",
        type=Path,
        metavar="CONFIG.yml",
        help="the conversations, the raters and the prompts; `regreason fetch prompts` writes one",
    )
    _add_asking(parser)
    batches = parser.add_mutually_exclusive_group()
    batches.add_argument(
        "--batch",
        action="store_true",
        help="send the calls as batches of the Batch API, at half the price, and collect the "
        "answers with the same command later",
    )
    batches.add_argument(
        "--batch-files",
        type=Path,
        metavar="DIR",
        help="like --batch without a server: write DIR/NAME.jsonl for `vllm run-batch`, and read "
        "DIR/NAME.results.jsonl",
    )
    parser.add_argument(
        "--show",
        type=positive,
        metavar="N",
        help="ask nothing; print N answers of each rater and state as they were read, beside their "
        "conversations",
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="with --show: write the answers as an HTML page"
    )


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
        "--check",
        action="store_true",
        help="ask each rater only its first question; print the answer, and time and cost of the "
        "rest",
    )
    parser.add_argument(
        "--budget",
        type=amount,
        metavar="X",
        help="stop before the calls in the store have cost more than X, in the prices' currency",
    )
    parser.add_argument(
        "--retry-failed",
        nargs="?",
        type=_failed_states,
        const=frozenset(),
        metavar="STATES",
        help="repeat the calls that failed in an earlier run, or only those with some states, such "
        "as `--retry-failed stalled,refused`; without STATES it leaves out unusable answers at "
        "temperature 0, as the same request gives the same answer",
    )


def _again(args: argparse.Namespace) -> AskedAgain:
    states: frozenset[str] | None = args.retry_failed
    return AskedAgain(failed=states is not None and not states, states=states or frozenset())


def _failed_states(text: str) -> frozenset[str]:
    states = frozenset(state.strip() for state in text.split(","))
    if unknown := sorted(states - FAILED_STATES):
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is no state of a failed call; {nearest(unknown[0], [*FAILED_STATES])}"
            f"{' (write the config before --retry-failed)' if '.' in text else ''}"
        )
    return states


@contextmanager
def _stopped_with_advice(store: Path) -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C does; both say how the command goes on."""

    def end(number: int, frame: FrameType | None) -> None:
        interrupt = signal.getsignal(signal.SIGINT)
        # A process in the background ignores SIGINT; asyncio has a handler of its own.
        (interrupt if callable(interrupt) else signal.default_int_handler)(signal.SIGINT, frame)

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if main else None
    try:
        yield
    except KeyboardInterrupt:
        where = f"; all answers so far are in {store}" if store.is_file() else ""
        errors.print(
            f"regreason: stopped{where}; the same command goes on from here",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        raise SystemExit(130) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def run_annotate(args: argparse.Namespace) -> int:
    """Rate conversations with an ensemble of raters.

    Reads the conversations that CONFIG.yml names, asks every rater with every
    prompt, and writes the scores, the explanations and the aggregated label of
    each conversation to the file that `out` in CONFIG.yml names. Every answer is
    stored at once, so a stopped command continues where it stopped and no call is
    made twice. Exit code 3: the budget ended it, or batches are waited for.

    Example:
        regreason annotate annotation/annotate.yml --budget 50
    """
    from regreason_plugin.annotate.config import read_config
    from regreason_plugin.annotate.provenance import provenance_path
    from regreason_plugin.annotate.run import annotate, check, dry_run

    config = read_config(args.config)
    for file in (config.out, config.store_path, provenance_path(config.out)):
        check_not_input(file, [args.config, *config.conversations], "out in the config")
    again = _again(args)
    if args.page and not args.show:
        raise UserError("--page needs --show N, the number of answers of each rater and state")
    if args.show:
        return _show_answers(config, args.show, args.page)
    if args.dry_run:
        planned = config.in_batches() if args.batch or args.batch_files else config
        _show_plan(dry_run(planned, again=again), config.store_path)
        return 0
    rows = sum(map(count_lines, config.conversations)) * len(AXES)
    watcher = ConsoleWatcher(errors, rows)
    with _stopped_with_advice(config.store_path):
        if args.check:
            check(config, ConsoleWatcher(console, None), again=again, budget=args.budget)
            say(f"Next: regreason annotate {args.config}")
            return 0
        if args.batch or args.batch_files:
            from regreason_plugin.annotate.batch_run import annotate_in_batches

            finished = annotate_in_batches(
                config, watcher, again=again, budget=args.budget, folder=args.batch_files
            )
            folder = f"-files {args.batch_files}" if args.batch_files else ""
            return _show_finished(config, f"{args.config} --batch{folder}", finished)
        finished = annotate(config, watcher, again=again, budget=args.budget)
        return _show_finished(config, str(args.config), finished)


def _show_answers(config: AnnotateConfig, number: int, page: Path | None) -> int:
    from regreason_plugin.annotate.answer_examples import answer_examples
    from regreason_plugin.annotate.call_steps import open_store_to_read
    from regreason_plugin.render.answer_page import print_answers, write_answer_page

    if page:
        check_not_input(page, [*config.conversations, config.out, config.store_path], "--page")
    with open_store_to_read(config.store_path, config.servers) as store:
        shown = answer_examples(config, store, number)
    if not shown:
        raise UserError(
            "has no answers of the raters in the config; make calls first, with --check or without",
            path=config.store_path,
        )
    print_answers(console, shown)
    if page:
        write_answer_page(shown, page)
        say(f"Written: {page}")
    return 0


def _show_plan(plans: Sequence[LanePlan], store: Path) -> None:
    """Print the result of `--dry-run` and one whole prompt.

    Args:
        plans: The planned calls of each rater.
        store: The path of the store of calls.
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
            "unknown" if plan.cost is None else f"{plan.cost:,.2f}",
        )
    print_whole(console, table)
    if any(plan.cost is None for plan in plans):
        say("A cost is unknown for a rater without a price in the config.")
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
        cost=sum(costs) if len(costs) == len(plans) else None,
    )


def _show_finished(config: AnnotateConfig, arguments: str, finished: Finished) -> int:
    """Print the summary.

    Args:
        config: The config.
        arguments: The arguments of the same command.
        finished: The result.

    Returns:
        The command's exit code: 3 where the budget ended it, or batches are waited for.
    """
    command = f"regreason annotate {arguments}"
    for line in finished.waiting:
        say(f"Waiting for {line}")
    if finished.waiting:
        say("No ratings are written yet.")
        say(f"Next: {command} again, when the batches are done")
        return 3
    if _ended_by_budget(finished, "no ratings are", config.store_path, command):
        return 3
    say(f"{finished.ratings:,} ratings: {config.out}")
    for reason, number in finished.dropped.items():
        say(f"  {number:,} left out: {reason}")
    failed = Counter({kind: number for kind, number in finished.calls.items() if kind != OK})
    if failed:
        total = finished.calls.total()
        say(f"  {failed.total():,} of {total:,} scores are missing: {by_state(failed)}")
        _show_unusable(config, finished)
        say(f"  {command} --retry-failed repeats those calls")
        if any(is_in_vain(kind, rater) for kind in failed for rater in config.servers):
            say(_IN_VAIN)
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


def _show_unusable(config: AnnotateConfig, finished: Finished) -> None:
    """Print a line for each rater and prompt with as many unusable answers as ring the alarm."""
    asked: dict[tuple[str, str], Counter[str]] = {}
    for (rater, prompt, state), number in finished.answers.items():
        asked.setdefault((rater, prompt), Counter())[state] += number
    for (rater, prompt), states in asked.items():
        unusable = Counter({state: states[state] for state in states if state in ADVICE})
        if unusable and unusable.total() >= config.alarm.share * states.total():
            say(
                f"  {rater} with {prompt}: {unusable.total():,} of {states.total():,} answers "
                f"cannot be used; {advice(unusable)}"
            )


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
        check,
        check_files,
        dry_run,
        explain,
        write_task,
    )
    from regreason_plugin.core.task_file import read_task

    task, config = read_task(args.task), read_explain_config(args.config)
    check_files(task, args.task, args.out, args.task_out)
    again, store = _again(args), config.store_path(args.out)
    if args.dry_run:
        _show_plan(dry_run(task, config, args.out, again=again), store)
        if len(config.raters) > 1:
            say("\nA later rater is asked only about rows on which all earlier raters failed.")
        return 0
    with _stopped_with_advice(store):
        if args.check:
            watcher = ConsoleWatcher(console, None)
            check(task, config, args.out, watcher, again=again, budget=args.budget)
            say("Next: the same command without --check")
            return 0
        watcher = ConsoleWatcher(errors, None)
        done = explain(task, config, args.out, watcher, again=again, budget=args.budget)
    if _ended_by_budget(done, "no table is", store, "the same command"):
        return 3
    _show_explained(done, args.out, config)
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


def _show_explained(done: Explained, out: Path, config: ExplainConfig) -> None:
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
        say(f"  {done.failed.total():,} could not be explained: {by_state(done.failed)}")
        if unusable := Counter({one: done.failed[one] for one in done.failed if one in ADVICE}):
            say(f"    {advice(unusable)}")
        say("    build leaves those rows out of training; --retry-failed repeats the calls")
        if any(is_in_vain(kind, rater) for kind in done.failed for rater in config.raters):
            say(_IN_VAIN)
