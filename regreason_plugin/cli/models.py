"""The commands `check`, `eval`, `compare`, `demo` and `study`."""

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
        help="an arm and the folder with its results, of one or several seeds; a folder without "
        "NAME= is split into the arms that it holds. For any tasks of lm_eval, NAME=FOLDER,FOLDER "
        "names several runs of an arm",
    )
    compare.add_argument(
        "--baseline",
        required=True,
        metavar="NAME",
        help="the arm that every other arm is compared with",
    )
    compare.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder for the page, the tables and the figures",
    )
    compare.add_argument(
        "--primary",
        metavar="ARM[:METRIC]",
        help="the primary question: does this arm differ from the baseline in this metric? It is "
        "tested alone at 0.05; the other tests make claims only if it rejects, and are corrected "
        "together. Default: explanation:acc if there is such an arm, otherwise the accuracy of "
        "the only other arm",
    )
    compare.add_argument(
        "--margin",
        type=distance,
        default=0.01,
        metavar="X",
        help="call two arms the same if they are shown to differ by less than X in the primary "
        "metric; default: 0.01",
    )
    compare.add_argument(
        "--difference",
        type=share,
        default=0.02,
        metavar="X",
        help="report how many test rows and seeds it takes to find a difference of X in pooled "
        "accuracy; default: 0.02",
    )
    compare.add_argument(
        "--tasks",
        type=lambda text: text.split(","),
        metavar="A,B",
        help="compare these tasks of lm_eval, or groups of tasks, by the metrics that lm_eval "
        "logged; patterns such as 'mmlu*' work. Default: RegReason's tasks if the results hold "
        "any, otherwise all tasks that every arm has",
    )
    compare.add_argument(
        "--group-by",
        metavar="FIELD",
        help="with any tasks of lm_eval: documents with the same value of this field are one "
        "group, such as the questions on one passage; '' for no groups. Default: the first of the "
        "fields passage, article, paragraph, context and story whose texts repeat",
    )
    compare.add_argument(
        "--calibrated",
        action="store_true",
        help="also report the metrics of each model's calibrated probabilities, with the "
        "temperature that `regreason calibrate` has fitted; the tests stay the same",
    )
    compare.add_argument("--spreadsheet-safe", action="store_true", help=SPREADSHEET_SAFE)


def add_demo(demo: argparse.ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        metavar="DIR",
        help="the folder for everything that the demo writes; default: runs/demo",
    )
    demo.add_argument(
        "--arms",
        default=",".join(PAPER_ARMS),
        metavar="A,B",
        help=f"which arms to train, or all; default: the paper's four, {','.join(PAPER_ARMS)}",
    )
    demo.add_argument(
        "--seed", type=int, default=0, metavar="S", help="the seed of data and training; default: 0"
    )


def add_study(study: argparse.ArgumentParser) -> None:
    """Add the arguments of `study`."""
    study.add_argument(
        "study", type=Path, metavar="STUDY.yml", help="the file that describes the study"
    )
    study.add_argument(
        "--dry-run",
        action="store_true",
        help="only print every command that would run, with the estimated time and memory",
    )
    study.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="how many models to train at once; default: one for each GPU, otherwise one for each "
        "core, at most 4 and as many as fit into memory",
    )
    study.add_argument(
        "--minutes",
        type=amount,
        metavar="M",
        help="start nothing that would not end within M minutes; the same command continues later",
    )


def add_eval(parser: argparse.ArgumentParser) -> None:
    """Add nothing: `main` passes everything after `eval`, also ``-h``, to lm_eval."""


def run_eval(args: argparse.Namespace) -> int:
    r"""Score a model with lm_eval; every flag is lm_eval's own.

    Registers the model regreason-hf, which gives the scores of lm_eval's own `hf`
    several times faster and measures entropies, and the tasks `regreason_*`.
    Reads and writes what lm_eval reads and writes.

    Example:
        regreason eval --model regreason-hf --tasks 'regreason_*' --log_samples \
          --model_args pretrained=BASE,peft=ADAPTER,probe=all --output_path results
    """
    from regreason_plugin.evaluate.eval_command import main as run_lm_eval

    return run_lm_eval(args.lm_eval_options)


def run_check(args: argparse.Namespace) -> int:
    """Find the faults of an Axolotl config before it costs a training run.

    Reads CONFIG.yml, its data and its tokenizer. Prints every fault, or, without
    faults, what would be trained and how much memory it takes. Writes nothing and
    needs no GPU. Any option of `axolotl train` may follow, such as --seed 3.

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
    counts = print_findings(checked, errors)
    if counts["error"]:
        return 2
    print_report(checked, console)
    return 0


def run_compare(args: argparse.Namespace) -> int:
    r"""Compare the results of several arms with a baseline.

    Reads the results and samples that lm_eval wrote with --log_samples, for
    RegReason's tasks or any others. Pairs them row by row, and refuses models that
    were not scored on the same rows and prompts. Writes a
    page, figures and tables to --out: every difference has a confidence interval,
    the primary question comes first, and no sentence claims more than the
    corrected tests show.

    Example:
        regreason compare label_only=A shuffled=B explanation=C --baseline label_only \
          --primary explanation:acc --out comparison
    """
    from regreason_plugin.comparison.arms import read_arms
    from regreason_plugin.comparison.compare import compare
    from regreason_plugin.render.report_files import write
    from regreason_plugin.render.terminal import print_comparison

    runs = read_arms(args.results, args.tasks)
    tasks = {task for run in runs for task in (run.logged or run.tasks)}
    # Sorted: the report must not depend on the order in which the arms were typed.
    given = shlex.join(sorted(args.results))
    command = f"regreason compare {given} --baseline {shlex.quote(args.baseline)}"
    if args.primary is not None:
        command += f" --primary {shlex.quote(args.primary)}"
    if args.margin != 0.01:
        command += f" --margin {args.margin:g}"
    if args.tasks is not None:
        command += f" --tasks {shlex.quote(','.join(args.tasks))}"
    if args.group_by is not None:
        command += f" --group-by {shlex.quote(args.group_by)}"
    if args.calibrated:
        command += " --calibrated"
    with progress(len(tasks)) as advance:
        advance("read", 0)
        compared = compare(
            runs,
            args.baseline,
            primary=args.primary,
            margin=args.margin,
            difference=args.difference,
            command=command,
            group_by=args.group_by,
            calibrated=args.calibrated,
            advance=lambda done: advance("read", done),
        )
    with errors.status("writing the page and the figures"):
        written = write(compared, args.out, spreadsheet_safe=args.spreadsheet_safe)
    print_comparison(compared.comparison, console)
    for run in runs:
        for old in run.superseded:
            say(f"Not used, because the folder holds a newer result: {old}")
    for path in written:
        say(f"Written: {path}")
    say(f"Next: open {args.out / 'report.html'}")
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Run every step on the generated mini benchmark, on a CPU.

    Builds the data, trains one model for each arm, scores the models and compares
    them. Prints the command of each step before running it, and writes everything
    below --out. It needs a checkout of the repository. A stopped demo continues
    where it stopped.

    Example:
        regreason demo --out runs/demo
    """
    from regreason_plugin import demo

    return demo.run_demo(args.out, names(args.arms, "arm", list(ARMS)), args.seed)


def run_study(args: argparse.Namespace) -> int:
    """Compare ways to train on your own data, with several seeds.

    Reads STUDY.yml, which names the data, the base model, the conditions and the
    seeds. Builds the data, chooses hyperparameters on validation rows, trains and
    scores every model, and writes the comparison, learning curves and a report.
    Estimates time and memory from a few measured steps before it starts. A
    stopped study continues where it stopped. Exit code 3: the time limit ended it.

    Example:
        regreason study studies/mini.yml --dry-run
    """
    from regreason_plugin import study

    return study.run_study(
        args.study, jobs=args.jobs, minutes=args.minutes or None, dry_run=args.dry_run
    )


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    # Unknown options go to Axolotl, so argparse must not take them for abbreviations of ours.
    parser.allow_abbrev = False
    parser.add_argument(
        "config", type=Path, metavar="CONFIG.yml", help="the config for `axolotl train`"
    )
    parser.add_argument(
        "--sweep", type=Path, metavar="FILE", help="check every run of this Axolotl sweep file"
    )
    parser.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="how many GPUs the training uses; default: 1",
    )
