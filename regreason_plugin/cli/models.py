"""The commands around a model: its config, its scores, and all of it at once."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from regreason_plugin.cli.console import (
    SPREADSHEET_SAFE,
    amount,
    console,
    distance,
    errors,
    names,
    positive,
    progress,
    say,
    share,
)
from regreason_plugin.data_folder.arms import ARMS, PAPER_ARMS


def add_compare(compare: argparse.ArgumentParser) -> None:
    """Add the arguments of `compare`."""
    compare.add_argument(
        "results",
        nargs="+",
        metavar="NAME=RESULTS",
        help="of one arm, one or several seeds; without NAME= a folder that is split into arms",
    )
    compare.add_argument("--baseline", required=True, metavar="NAME")
    compare.add_argument("--out", type=Path, required=True, metavar="DIR")
    compare.add_argument(
        "--primary",
        metavar="ARM[:METRIC]",
        help="the one question that is tested by itself: whether this arm differs from the "
        "baseline in this metric; default: explanation:acc if that arm is there, else the only "
        "arm beside the baseline; all other tests make claims only once this one rejects",
    )
    compare.add_argument(
        "--margin",
        type=distance,
        default=0.01,
        metavar="X",
        help="call two arms the same where they are shown to differ by less, in the primary "
        "metric; default: 0.01",
    )
    compare.add_argument(
        "--difference",
        type=share,
        default=0.02,
        metavar="X",
        help="say what it takes to find this difference in pooled accuracy; default: 0.02",
    )
    compare.add_argument("--spreadsheet-safe", action="store_true", help=SPREADSHEET_SAFE)


def add_demo(demo: argparse.ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR")
    demo.add_argument("--arms", default=",".join(PAPER_ARMS), help="a,b,c or all; the paper's four")
    demo.add_argument("--seed", type=int, default=0)


def add_study(study: argparse.ArgumentParser) -> None:
    """Add the arguments of `study`."""
    study.add_argument("study", type=Path, metavar="STUDY.yml")
    study.add_argument(
        "--dry-run", action="store_true", help="only show the plan and what it takes"
    )
    study.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="at once; default: the GPUs, else the cores, as far as the memory allows, at most 4",
    )
    study.add_argument(
        "--minutes",
        type=amount,
        metavar="M",
        help="start nothing that would not end within them; the same command goes on later",
    )


def add_eval(parser: argparse.ArgumentParser) -> None:
    """Add none: `main` hands over what stands behind `eval`, ``-h`` included."""


def run_eval(args: argparse.Namespace) -> int:
    r"""Score a model with lm_eval, whose own flags follow.

    Makes the model regreason-hf and our tasks known to it; reads and writes
    what lm_eval does.

    Example:
        regreason eval --model regreason-hf --tasks 'regreason_*' --log_samples \
          --model_args pretrained=BASE,peft=ADAPTER,probe=all --output_path results
    """
    from regreason_plugin.evaluate.eval_command import main as run_lm_eval

    return run_lm_eval(args.lm_eval_options)


def run_check(args: argparse.Namespace) -> int:
    """Find what is wrong with an Axolotl config before it is trained.

    Reads CONFIG.yml, its data and its tokenizer, prints the faults or else what
    would be trained, and writes nothing; no GPU is needed. Any option of
    `axolotl train` may follow, as in --seed 3.

    Example:
        regreason check axolotl_configs/gpu/mistral-7b-qlora.yml --processes 8
    """
    from regreason_plugin.train.check.config_loading import quiet, read_options, read_runs

    with quiet():
        with errors.status("loading Axolotl"):
            from regreason_plugin.train.check.check import check_runs
            from regreason_plugin.train.check.report import print_findings, print_report

            given = read_options(str(args.config), args.axolotl_options)
        runs = read_runs(args.config, args.sweep, given)
        with progress(len(runs)) as advance:
            advance("check", 0)
            checked = check_runs(
                runs, str(args.config), args.processes, lambda: advance("check", 1)
            )
    found = print_findings(checked, errors)
    if found["error"]:
        return 2
    print_report(checked, console)
    return 0


def run_compare(args: argparse.Namespace) -> int:
    r"""Compare the results of several arms with a baseline.

    Reads lm_eval's results and samples, and writes a page, figures and tables
    of the differences with confidence intervals to --out. They begin with the
    primary question, and claim nothing that the corrected tests do not show.

    Example:
        regreason compare label_only=A shuffled=B explanation=C --baseline label_only \
          --primary explanation:acc --out comparison
    """
    from regreason_plugin.comparison.arms import read_arms
    from regreason_plugin.comparison.compare import compare
    from regreason_plugin.render.report_files import write
    from regreason_plugin.render.terminal import print_comparison

    runs = read_arms(args.results)
    tasks = {task for run in runs for task in run.tasks}
    # In one order, since nothing else depends on theirs.
    given = shlex.join(sorted(args.results))
    command = f"regreason compare {given} --baseline {shlex.quote(args.baseline)}"
    if args.primary is not None:
        command += f" --primary {shlex.quote(args.primary)}"
    if args.margin != 0.01:
        command += f" --margin {args.margin:g}"
    with progress(len(tasks)) as advance:
        advance("read", 0)
        compared = compare(
            runs,
            args.baseline,
            primary=args.primary,
            margin=args.margin,
            difference=args.difference,
            command=command,
            advance=lambda done: advance("read", done),
        )
    with errors.status("writing the page and the figures"):
        written = write(compared, args.out, spreadsheet_safe=args.spreadsheet_safe)
    print_comparison(compared.comparison, console)
    for run in runs:
        for old in run.superseded:
            say(f"Left out, a newer one exists: {old}")
    for path in written:
        say(f"Written: {path}")
    say(f"Next: open {args.out / 'report.html'}")
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Run everything on the mini benchmark, on a CPU.

    Builds the data, trains each arm, scores and compares them, each by the
    command it prints, and writes all of it below --out; needs a checkout.

    Example:
        regreason demo --out runs/demo
    """
    from regreason_plugin import demo

    return demo.run_demo(args.out, names(args.arms, "arm", list(ARMS)), args.seed)


def run_study(args: argparse.Namespace) -> int:
    """Compare ways to train on data of your own, with several seeds.

    Reads STUDY.yml, which names the data, the base model, the conditions and
    the seeds; builds the data, chooses hyperparameters on validation, trains
    and scores every model, and writes the comparison, learning curves and a
    report. A stopped study goes on where it stopped. Before it starts it says
    what it takes, from a few measured steps. Exit code 3: out of time.

    Example:
        regreason study studies/mini.yml --dry-run
    """
    from regreason_plugin import study

    return study.run_study(
        args.study, jobs=args.jobs, minutes=args.minutes or None, dry_run=args.dry_run
    )


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    # What it does not know is Axolotl's, so no abbreviation may take it.
    parser.allow_abbrev = False
    parser.add_argument("config", type=Path, metavar="CONFIG.yml")
    parser.add_argument("--sweep", type=Path, metavar="FILE", help="check every run of a sweep")
    parser.add_argument(
        "--processes", type=positive, default=1, metavar="N", help="GPUs; default 1"
    )
