"""The command that decides whether a model may replace another."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from regreason_plugin.cli.console import amount, positive, say
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.metrics.metric_names import DESCRIBED, GATED, METRICS

if TYPE_CHECKING:
    from regreason_plugin.comparison.gate import Rule
    from regreason_plugin.comparison.planned_looks import Look


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
        choices=(*GATED, *DESCRIBED),
        default="acc",
        metavar="METRIC",
        help=f"what is compared, one of {', '.join(GATED)}; default: acc",
    )
    gate.add_argument(
        "--max-drop",
        type=amount,
        default=0.01,
        metavar="X",
        help="how much worse it may be, in the metric's unit; default: 0.01",
    )
    gate.add_argument(
        "--min",
        type=float,
        metavar="X",
        help="a floor: the candidate's own metric has to be shown above X, too",
    )
    gate.add_argument(
        "--max",
        type=float,
        metavar="X",
        help="the same for a metric where lower is better, such as nll: shown below X",
    )
    gate.add_argument(
        "--per",
        metavar="PART",
        help="every part has to pass, not only all documents together: setting, class (the right "
        "label), or a field of the documents, such as dataset or axis",
    )
    gate.add_argument(
        "--alpha",
        type=_error_rate,
        default=0.05,
        metavar="A",
        help="how often a pass may be wrong, and a fail likewise; default: 0.05",
    )
    gate.add_argument(
        "--looks",
        type=positive,
        metavar="K",
        help="how many looks are planned at results that grow by equal shares of the groups; "
        "alpha is spent over them; default: one test",
    )
    gate.add_argument("--look", type=positive, metavar="k", help="which of the planned looks it is")
    gate.add_argument("--junit", type=Path, metavar="F", help="write JUnit's XML")
    gate.add_argument("--json", type=Path, metavar="F", help="write all numbers as JSON")
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
    and writes it as JUnit's XML, JSON and Markdown if asked to. Exit code 0: not
    worse by more than --max-drop, shown by the lower bound of the change; 1:
    worse by more, shown by the upper bound; 3: neither; 2: the input is wrong.
    Accuracy has Tango's score interval for paired proportions on the effective
    number of documents; nll and mae a t interval of the mean difference over
    groups; macro_f1, qwk, miscalibration and auroc (two labels) the
    delete-one-group jackknife, the mean over settings weighted by documents.

    Example:
        regreason gate current=results/current new=results/new --baseline current --max-drop 0.01
    """
    from regreason_plugin.comparison.gate import EXIT_CODES, decide
    from regreason_plugin.evaluate.results import read_run
    from regreason_plugin.render.gate_pages import print_decision, write

    folders = dict(map(_name_and_folder, args.results))
    if len(folders) < 2:
        raise UserError(f"the name {next(iter(folders))!r} stands twice; give each model its own")
    if args.baseline not in folders:
        raise UserError(f"--baseline {args.baseline!r} is none of {', '.join(folders)}")
    written = {"--junit": args.junit, "--json": args.json, "--summary": args.summary}
    for flag, path in written.items():
        if path:
            check_not_input(path, list(folders.values()), flag)
    rule = _rule(args)
    baseline, candidate = sorted(folders, key=lambda name: name != args.baseline)
    runs = read_run(baseline, folders[baseline]), read_run(candidate, folders[candidate])
    decision = decide(*runs, rule)
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    summary = args.summary or (Path(step) if step else None)
    write(decision, junit=args.junit, summary=summary, json=args.json)
    print_decision(decision)
    for old in (old for run in runs for old in run.superseded):
        say(f"Left out, a newer one exists: {old}")
    for path in written.values():
        if path:
            say(f"Written: {path}")
    return EXIT_CODES[decision.verdict]


def _rule(args: argparse.Namespace) -> Rule:
    """What is asked, out of the flags."""
    from regreason_plugin.comparison.gate import Rule

    if args.metric in DESCRIBED:
        raise UserError(
            f"--metric {args.metric} is above zero for a calibrated model, too, the more so the "
            "fewer the documents; use --metric miscalibration"
        )
    lower = METRICS[args.metric].better == "lower"
    right, wrong = ("max", "min") if lower else ("min", "max")
    if getattr(args, wrong) is not None:
        raise UserError(
            f"--{wrong} is for metrics where {'higher' if lower else 'lower'} is better, and "
            f"{args.metric} is none; use --{right}"
        )
    return Rule(
        metric=args.metric,
        max_drop=args.max_drop,
        limit=getattr(args, right),
        per=args.per,
        alpha=args.alpha,
        look=_look(args),
    )


def _look(args: argparse.Namespace) -> Look | None:
    from regreason_plugin.comparison.planned_looks import MOST_LOOKS, planned_look

    if args.looks is None and args.look is None:
        return None
    if args.looks is None:
        raise UserError("--look needs --looks: how many looks were planned before the first")
    if args.look is None:
        raise UserError(f"--looks {args.looks} needs --look: which of them this is")
    if args.look > args.looks:
        raise UserError(f"--look {args.look} is beyond the {args.looks} planned with --looks")
    if args.looks > MOST_LOOKS:
        raise UserError(f"--looks {args.looks} are too many; plan at most {MOST_LOOKS}")
    return planned_look(args.look, args.looks, args.alpha)


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
