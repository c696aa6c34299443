"""The command `power`, which plans a comparison."""

from __future__ import annotations

import argparse

from regreason_plugin.cli.console import console, progress, share


def add_power(power: argparse.ArgumentParser) -> None:
    """Add the arguments of `power`."""
    power.add_argument(
        "results",
        nargs="+",
        metavar="NAME=RESULTS",
        help="two arms or more with their results, as for `regreason compare`: a pilot, such as "
        "two models on some of the documents",
    )
    power.add_argument(
        "--baseline", required=True, metavar="NAME", help="the arm to compare the others with"
    )
    power.add_argument(
        "--difference",
        type=share,
        default=0.01,
        metavar="X",
        help="the difference to find, in the metric's unit; default: 0.01",
    )
    power.add_argument(
        "--metric",
        metavar="METRIC",
        help="the metric of the comparison; default: acc, or the first metric of each task",
    )
    power.add_argument("--tasks", type=names_of, metavar="A,B", help="as in `regreason compare`")
    power.add_argument("--group-by", metavar="FIELD", help="as in `regreason compare`")


def names_of(text: str) -> list[str]:
    """Names joined by commas."""
    return text.split(",")


def run_power(args: argparse.Namespace) -> int:
    """Say how many documents and runs it takes to find a difference.

    Reads the results of a pilot, as `regreason compare` does, and prints the number
    of documents, by the number of runs of each arm, with which a comparison of this
    kind finds a difference of X with a probability of 80 % (one test at 0.05). The
    pilot shows how much documents and runs vary; the difference that it found does
    not enter. Writes nothing.

    Example:
        regreason power base=out/base tuned=out/tuned --baseline base --difference 0.01
    """
    from regreason_plugin.comparison.arms import Arms, read_arms
    from regreason_plugin.comparison.compare import primary_question, read_scores
    from regreason_plugin.comparison.estimates import Estimates
    from regreason_plugin.comparison.sample_size import sample_sizes
    from regreason_plugin.core.errors import UserError
    from regreason_plugin.render.sample_sizes import print_sample_sizes

    arms = Arms.of(read_arms(args.results, args.tasks), args.baseline)
    with progress(len({task for run in arms.models for task in run.logged or run.tasks})) as done:
        done("read", 0)
        scores, _ = read_scores(arms, args.group_by, lambda count: done("read", count))
    _, metric = primary_question(arms, arms.others[0], scores) or ("", "")
    if args.metric and args.metric not in (known := Estimates(scores).metrics):
        raise UserError(
            f"--metric: not every task has {args.metric!r}; name one that all tasks have: "
            f"{', '.join(known)}"
        )
    metric = args.metric or metric
    sizes = sample_sizes(arms, scores, metric, args.difference)
    print_sample_sizes(sizes, metric, args.difference, console)
    return 0
