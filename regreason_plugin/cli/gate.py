"""The command that decides whether a model may replace another."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from regreason_plugin.cli.console import AddCommand, amount, say
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.metrics.metric_names import GATED

_EXITS = (
    "Exit code 0: not worse by more than --max-drop, shown by the lower bound of the change; 1: "
    "worse by more, shown by the upper one; 3: neither, and how many documents would decide; 2: "
    "the input is wrong. The change is over all documents of the tasks, which both folders must "
    "have. Accuracy has Tango's score interval for paired shares, widened for groups of documents; "
    "nll and mae a t interval of the mean difference over groups; macro_f1, qwk and ece (the mean "
    "over settings, each counted by its documents) one by the delete-one-group jackknife, and "
    "so does auroc, of two labels."
)


def add_commands(command: AddCommand) -> None:
    """Add it to the parser."""
    gate = command(
        "gate", _gate, "whether a model is no worse than another by more than is allowed"
    )
    gate.epilog = _EXITS
    gate.add_argument(
        "--baseline",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="results of one model, with --log_samples",
    )
    gate.add_argument("--candidate", type=Path, required=True, metavar="FOLDER", help="likewise")
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


def _gate(args: argparse.Namespace) -> int:
    from regreason_plugin.compare.gate import EXIT_CODES, decide
    from regreason_plugin.evaluate.results import read_run
    from regreason_plugin.render.gate_pages import print_decision, write

    for flag, written in (("--junit", args.junit), ("--summary", args.summary)):
        if written:
            check_not_input(written, [args.baseline, args.candidate], flag)
    runs = read_run("baseline", args.baseline), read_run("candidate", args.candidate)
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


def _error_rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 0.5")
    return rate
