"""The command that decides whether a model may replace another."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from regreason_plugin.cli.console import amount, say
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.metrics.metric_names import GATED


def add_gate(gate: argparse.ArgumentParser) -> None:
    """Add the arguments of `gate`."""
    gate.add_argument(
        "results",
        nargs=2,
        metavar="NAME=RESULTS",
        help="the results of one model each, scored with --log_samples",
    )
    gate.add_argument(
        "--baseline", required=True, metavar="NAME", help="which of the two is the baseline"
    )
    gate.add_argument(
        "--metric",
        choices=GATED,
        default="acc",
        help="default: acc",
    )
    gate.add_argument(
        "--max-drop",
        type=amount,
        default=0.01,
        metavar="X",
        help="how much worse it may be, in the metric's unit; default: 0.01",
    )
    gate.add_argument(
        "--alpha",
        type=_error_rate,
        default=0.05,
        metavar="A",
        help="how often a pass may be wrong, and a fail likewise; default: 0.05",
    )
    gate.add_argument("--junit", type=Path, metavar="F", help="write JUnit's XML")
    gate.add_argument(
        "--summary",
        type=Path,
        metavar="F",
        help="append Markdown; default: the step summary of GitHub Actions, where it runs there",
    )


def run_gate(args: argparse.Namespace) -> int:
    """Decide whether a model may replace the baseline.

    Reads two models' results of the same documents, tests whether the other
    model is worse than the baseline by more than --max-drop, prints the verdict
    and writes it as JUnit's XML and Markdown if asked to. Exit code 0: not
    worse by more than --max-drop, shown by the lower bound of the change; 1:
    worse by more, shown by the upper bound; 3: neither, and how many documents
    would decide; 2: the input is wrong. Accuracy has Tango's score interval for
    paired proportions, widened for groups of documents; nll and mae a t
    interval of the mean difference over groups; macro_f1, qwk, ece (the mean
    over settings, weighted by documents) and auroc (two labels) the delete-one-
    group jackknife.

    Example:
        regreason gate current=results/current new=results/new --baseline current --max-drop 0.01
    """
    from regreason_plugin.compare.gate import EXIT_CODES, decide
    from regreason_plugin.evaluate.results import read_run
    from regreason_plugin.render.gate_pages import print_decision, write

    folders = dict(map(_name_and_folder, args.results))
    if len(folders) < 2:
        raise UserError(f"the name {next(iter(folders))!r} stands twice; give each model its own")
    if args.baseline not in folders:
        raise UserError(f"--baseline {args.baseline!r} is none of {', '.join(folders)}")
    for flag, written in (("--junit", args.junit), ("--summary", args.summary)):
        if written:
            check_not_input(written, list(folders.values()), flag)
    baseline, candidate = sorted(folders, key=lambda name: name != args.baseline)
    runs = read_run(baseline, folders[baseline]), read_run(candidate, folders[candidate])
    decision = decide(*runs, args.metric, args.max_drop, args.alpha)
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    write(decision, args.junit, args.summary or (Path(step) if step else None))
    print_decision(decision)
    for old in (old for run in runs for old in run.superseded):
        say(f"Left out, a newer one exists: {old}")
    for path in (args.junit, args.summary):
        if path:
            say(f"Written: {path}")
    return EXIT_CODES[decision.verdict]


def _name_and_folder(argument: str) -> tuple[str, Path]:
    name, _, folder = argument.partition("=")
    if not name or not folder:
        raise UserError(f"{argument!r} is not NAME=RESULTS, such as current=results/current")
    return name, Path(folder)


def _error_rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 0.5")
    return rate
