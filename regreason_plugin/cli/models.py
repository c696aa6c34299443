"""The commands around a model: its config, its scores, and all of it at once."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from regreason_plugin.build.arms import ARMS, PAPER_ARMS
from regreason_plugin.cli.console import (
    SPREADSHEET_SAFE,
    AddCommand,
    console,
    errors,
    mini_size,
    names,
    positive,
    progress,
    say,
    share,
)
from regreason_plugin.task.shipped_configs import FOLDER


def add_commands(command: AddCommand) -> None:
    """Add them to the parser."""
    configs = command("configs", _configs, "the Axolotl configs, for who has no checkout")
    configs.add_argument(
        "--dest", type=Path, default=Path(FOLDER), metavar="DIR", help=f"default: {FOLDER}"
    )

    # Listed for --help; `main` hands their arguments on untouched.
    command("eval", lambda _: 0, "lm_eval with its own flags, our model and tasks at hand")
    command("check", lambda _: 0, "what is wrong with an Axolotl config, before it is trained")

    compare = command("compare", _compare, "result folders of several arms as one table")
    compare.add_argument(
        "results",
        nargs="+",
        metavar="NAME=RESULTS",
        help="of one arm, one or several seeds; without NAME= a folder that is split into arms",
    )
    compare.add_argument("--baseline", required=True, metavar="NAME")
    compare.add_argument("--out", type=Path, required=True, metavar="DIR")
    compare.add_argument(
        "--difference",
        type=share,
        default=0.02,
        metavar="X",
        help="say what it takes to find this difference in pooled accuracy; default: 0.02",
    )
    compare.add_argument("--spreadsheet-safe", action="store_true", help=SPREADSHEET_SAFE)

    demo = command("demo", _demo, "all of it, on the mini benchmark, on a CPU")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR")
    demo.add_argument("--arms", default=",".join(PAPER_ARMS), help="a,b,c or all; the paper's four")
    demo.add_argument("--seed", type=int, default=0)

    study = command("study", _study, "the paper's question at small scale, on a CPU, in hours")
    study.add_argument("--out", type=Path, default=Path("runs/study"), metavar="DIR")
    study.add_argument("--seeds", type=positive, default=5, metavar="N", help="a condition")
    study.add_argument("--per-dataset", type=mini_size, default=200, metavar="N")
    study.add_argument("--jobs", type=positive, metavar="N", help="at once; default: the cores")


def _configs(args: argparse.Namespace) -> int:
    from regreason_plugin.task.shipped_configs import copy_configs

    for path in copy_configs(args.dest):
        say(f"Written: {path}")
    say(f"What there is: {args.dest / 'README.md'}")
    say("Next: regreason mini --out runs/demo/data")
    config, sweep = args.dest / "cpu" / "lora.yml", args.dest / "arms" / "explanation.yml"
    say(f"      axolotl train {config} --sweep {sweep}")
    return 0


def run_eval(arguments: list[str]) -> int:
    """`regreason eval`: the arguments are lm_eval's own."""
    from regreason_plugin.evaluate.command import main as run_lm_eval

    return run_lm_eval(arguments)


def run_check(arguments: list[str]) -> int:
    """`regreason check`: arguments that are not its own are `axolotl train`'s."""
    args, options = _check_parser().parse_known_args(arguments)
    from regreason_plugin.train.check.config_loading import quiet, read_options, read_runs

    with quiet():
        with errors.status("loading Axolotl"):
            from regreason_plugin.train.check.check import check_runs
            from regreason_plugin.train.check.report import print_findings, print_report

            given = read_options(str(args.config), options)
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


def _compare(args: argparse.Namespace) -> int:
    from regreason_plugin.compare.arms import read_arms
    from regreason_plugin.compare.compare import compare
    from regreason_plugin.render.report_files import write
    from regreason_plugin.render.terminal import print_comparison

    runs = read_arms(args.results)
    tasks = {task for run in runs for task in run.tasks}
    # In one order, since nothing else depends on theirs.
    given = shlex.join(sorted(args.results))
    with progress(len(tasks)) as advance:
        advance("read", 0)
        compared = compare(
            runs,
            args.baseline,
            difference=args.difference,
            command=f"regreason compare {given} --baseline {shlex.quote(args.baseline)}",
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


def _demo(args: argparse.Namespace) -> int:
    from regreason_plugin.demo import run_demo

    return run_demo(args.out, names(args.arms, "arm", list(ARMS)), args.seed)


def _study(args: argparse.Namespace) -> int:
    from regreason_plugin.study import run_study

    return run_study(args.out, args.seeds, args.per_dataset, args.jobs)


def _check_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regreason check",
        description="What is wrong with an Axolotl config and what it will train; nothing is "
        "written, and no GPU is needed. Any option of `axolotl train` may follow, as in --seed 3.",
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yml")
    parser.add_argument("--sweep", type=Path, metavar="FILE", help="check every run of a sweep")
    parser.add_argument(
        "--processes", type=positive, default=1, metavar="N", help="GPUs; default 1"
    )
    return parser
