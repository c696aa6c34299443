"""The command `gate`, which decides whether a model may replace another."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from regreason_plugin.cli.console import amount, positive, say
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.metrics.metric_names import GATE_METRICS, METRICS, REPORTED_METRICS, SCORE

if TYPE_CHECKING:
    from regreason_plugin.comparison.gate import Rule
    from regreason_plugin.comparison.planned_looks import Look


_MAX_DROP = 0.01
_ALPHA = 0.05


def add_gate(gate: argparse.ArgumentParser) -> None:
    """Add the arguments of `gate`."""
    gate.add_argument(
        "results",
        nargs=2,
        metavar="NAME=RESULTS",
        help="a name and the results folder of one model, scored with --log_samples; give two",
    )
    gate.add_argument(
        "--baseline", required=True, metavar="NAME", help="which of the two names is the baseline"
    )
    gate.add_argument(
        "--metric",
        metavar="METRIC",
        help=f"the metric to compare, one of {', '.join(GATE_METRICS)}; default: acc. On any tasks "
        "of lm_eval: one of their own metrics; default: the first one of each task",
    )
    gate.add_argument(
        "--max-drop",
        type=amount,
        default=_MAX_DROP,
        metavar="X",
        help="how much worse the candidate may be, in the metric's unit; default: 0.01",
    )
    gate.add_argument(
        "--min",
        type=float,
        metavar="X",
        help="a floor: the candidate's own metric must also be shown to be above X",
    )
    gate.add_argument(
        "--max",
        type=float,
        metavar="X",
        help="a ceiling, for metrics where lower is better, such as nll: the candidate's own "
        "metric must also be shown to be below X",
    )
    gate.add_argument(
        "--per",
        metavar="PART",
        help="require a pass in every part, not only over all rows together; PART is setting, "
        "class (the right label), or a field of the test rows such as dataset or axis. On any "
        "tasks of lm_eval, PART is task",
    )
    gate.add_argument(
        "--alpha",
        type=_error_rate,
        default=_ALPHA,
        metavar="A",
        help="the error rate of a pass, and of a fail; default: 0.05",
    )
    gate.add_argument(
        "--looks",
        type=positive,
        metavar="K",
        help="how many times you plan to run the gate while the test set grows in equal steps; "
        "alpha is spread over these looks; default: one test",
    )
    gate.add_argument(
        "--look", type=positive, metavar="k", help="which of the planned looks this is"
    )
    gate.add_argument(
        "--tasks",
        type=lambda text: tuple(text.split(",")),
        metavar="A,B",
        help="gate these tasks of lm_eval, or groups of tasks, by the metrics that lm_eval logged; "
        "patterns such as 'mmlu*' work. Default: RegReason's tasks if the results hold any, "
        "otherwise all tasks that both models have",
    )
    gate.add_argument(
        "--rules",
        type=Path,
        metavar="gate.yml",
        help="a file of rules on tasks of lm_eval that are tested together, each with its own "
        "tasks, metric, max_drop, min or max, and per; instead of the flags of these names",
    )
    gate.add_argument(
        "--group-by", metavar="FIELD", help="as in `regreason compare`, on any tasks of lm_eval"
    )
    gate.add_argument("--junit", type=Path, metavar="F", help="write the decision as JUnit XML")
    gate.add_argument("--json", type=Path, metavar="F", help="write every number as JSON")
    gate.add_argument(
        "--summary",
        type=Path,
        metavar="F",
        help="append the decision as Markdown; default: in GitHub Actions the step summary",
    )


def run_gate(args: argparse.Namespace) -> int:
    """Decide whether a model may replace the baseline.

    Reads the results of two models on the same test rows, on RegReason's tasks or
    any tasks of lm_eval, tests whether the
    candidate is worse than the baseline by more than --max-drop, and prints the
    verdict; on request also writes it as JUnit XML, JSON and Markdown. Exit codes:
    0, the lower bound of the change shows that the candidate is not worse by more
    than --max-drop; 1, the upper bound shows that it is; 3, neither is shown; 2,
    the input is wrong. Intervals: Tango's score interval for paired proportions,
    on the effective number of rows, for accuracy; a t interval of the mean
    difference over groups for nll and mae; the delete-one-group jackknife for
    macro_f1, qwk, miscalibration and auroc (two labels), as the mean over settings
    weighted by their rows.

    Example:
        regreason gate current=results/current new=results/new --baseline current --max-drop 0.01
    """
    from regreason_plugin.comparison.gate import EXIT_CODES, Decision, decide
    from regreason_plugin.comparison.gate_file import read_gate_file
    from regreason_plugin.comparison.logged_gate import decide_logged
    from regreason_plugin.evaluate.logged_results import read_logged_run, without_regreason_tasks
    from regreason_plugin.evaluate.results import read_run
    from regreason_plugin.render.gate_pages import print_decisions, verdict_of, write

    folders = dict(map(_name_and_folder, args.results))
    if len(folders) < 2:
        raise UserError(
            f"the name {next(iter(folders))!r} is used twice; give each model its own name"
        )
    if args.baseline not in folders:
        raise UserError(f"--baseline {args.baseline!r} is not one of {', '.join(folders)}")
    written = {"--junit": args.junit, "--json": args.json, "--summary": args.summary}
    for flag, path in written.items():
        if path:
            check_not_input(path, list(folders.values()), flag)
    names = sorted(folders, key=lambda name: name != args.baseline)
    chosen = args.tasks is not None or args.rules is not None
    if chosen or without_regreason_tasks(folders.items()):
        if args.rules:
            _check_no_flags(args)
            file = read_gate_file(args.rules)
            rules, group_by = [one.rule(file.alpha) for one in file.rules], file.group_by
        else:
            rules, group_by = [_logged_rule(args)], args.group_by
        tasks = [pattern for rule in rules for pattern in rule.tasks]
        baseline, candidate = (read_logged_run(name, folders[name], tasks) for name in names)
        decisions: list[Decision] = decide_logged(baseline, candidate, rules, group_by)
    else:
        rule = _rule(args)
        baseline, candidate = (read_run(name, folders[name]) for name in names)
        decisions = [decide(baseline, candidate, rule)]
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    summary = args.summary or (Path(step) if step else None)
    write(decisions, junit=args.junit, summary=summary, json=args.json)
    print_decisions(decisions)
    for old in (*baseline.superseded, *candidate.superseded):
        say(f"Not used, because the folder holds a newer result: {old}")
    for path in written.values():
        if path:
            say(f"Written: {path}")
    return EXIT_CODES[verdict_of(decisions)]


def _check_no_flags(args: argparse.Namespace) -> None:
    """Refuse flags beside ``--rules`` that the file of rules replaces."""
    given = {
        "--metric": args.metric is not None,
        "--max-drop": args.max_drop != _MAX_DROP,
        "--min": args.min is not None,
        "--max": args.max is not None,
        "--per": args.per is not None,
        "--alpha": args.alpha != _ALPHA,
        "--tasks": args.tasks is not None,
        "--group-by": args.group_by is not None,
        "--looks": args.looks is not None,
        "--look": args.look is not None,
    }
    if wrong := [flag for flag, is_given in given.items() if is_given]:
        raise UserError(f"{wrong[0]} does not go with --rules; write it into {args.rules}")


def _logged_rule(args: argparse.Namespace) -> Rule:
    """The rule that the flags describe, on any tasks of lm_eval."""
    from regreason_plugin.comparison.gate import Rule

    if args.min is not None and args.max is not None:
        raise UserError("give --min or --max, not both")
    return Rule(
        metric=args.metric or SCORE,
        max_drop=args.max_drop,
        limit=args.max if args.min is None else args.min,
        ceiling=args.max is not None,
        per=args.per,
        alpha=args.alpha,
        look=_look(args),
        tasks=args.tasks or (),
    )


def _rule(args: argparse.Namespace) -> Rule:
    """The rule that the flags describe."""
    from regreason_plugin.comparison.gate import Rule

    if args.group_by is not None:
        raise UserError("--group-by is for tasks of lm_eval; RegReason's tasks name their groups")
    metric = args.metric or "acc"
    if metric not in (*GATE_METRICS, *REPORTED_METRICS):
        raise UserError(f"--metric {metric}: {nearest(metric, list(GATE_METRICS))}")
    if metric in REPORTED_METRICS:
        raise UserError(
            f"--metric {metric} is biased: it is above zero even for a calibrated model, the "
            "more so the fewer the test rows; use --metric miscalibration"
        )
    lower = METRICS[metric].better == "lower"
    right, wrong = ("max", "min") if lower else ("min", "max")
    if getattr(args, wrong) is not None:
        raise UserError(
            f"--{wrong} is for metrics where {'higher' if lower else 'lower'} is better, which "
            f"{metric} is not; use --{right}"
        )
    return Rule(
        metric=metric,
        max_drop=args.max_drop,
        limit=getattr(args, right),
        ceiling=lower,
        per=args.per,
        alpha=args.alpha,
        look=_look(args),
    )


def _look(args: argparse.Namespace) -> Look | None:
    from regreason_plugin.comparison.planned_looks import MOST_LOOKS, planned_look

    if args.looks is None and args.look is None:
        return None
    if args.looks is None:
        raise UserError(
            "--look needs --looks, the number of looks that were planned before the first one"
        )
    if args.look is None:
        raise UserError(f"--looks {args.looks} needs --look, the number of this look")
    if args.look > args.looks:
        raise UserError(
            f"--look {args.look} is more than the {args.looks} looks planned with --looks"
        )
    if args.looks > MOST_LOOKS:
        raise UserError(f"--looks {args.looks} is too many; plan at most {MOST_LOOKS} looks")
    return planned_look(args.look, args.looks, args.alpha)


def _name_and_folder(argument: str) -> tuple[str, Path]:
    name, _, folder = argument.partition("=")
    if not name or not folder:
        raise UserError(f"{argument!r} is not NAME=RESULTS, such as current=results/current")
    return name, Path(folder)


def _error_rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 0.5")
    return rate
