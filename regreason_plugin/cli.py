"""The `regreason` command: thin, one function a command."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from regreason_plugin import __version__
from regreason_plugin.configs import FOLDER
from regreason_plugin.errors import UserError, nearest
from regreason_plugin.jsonl import count_lines
from regreason_plugin.prompt import ORDERS
from regreason_plugin.schema import Conversation
from regreason_plugin.settings import AXES, DATASETS, SETTINGS
from regreason_plugin.targets.arms import ARMS, PAPER_ARMS
from regreason_plugin.targets.build import BuildOptions, build
from regreason_plugin.targets.folder import DataFolder
from regreason_plugin.targets.scopes import SCOPE_KINDS

console = Console()
# Progress and errors go to standard error, so that what a command prints can be piped.
errors = Console(stderr=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 done; 2 the input is wrong, one line on standard error. Bugs keep their traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["eval"]:  # the rest is lm_eval's own
            return _eval(arguments[1:])
        if arguments[:1] == ["check"]:  # the rest may be Axolotl's own
            return _check(arguments[1:])
        parsed = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = parsed.run
        return command(parsed)
    except UserError as error:
        print(f"regreason: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("regreason: stopped", file=sys.stderr)
        return 130


# --- commands ---------------------------------------------------------------------------


def _mini(args: argparse.Namespace) -> int:
    from regreason_plugin.targets.mini import build_mini

    with _progress(args.per_dataset * len(SETTINGS)) as advance:
        folder = build_mini(
            args.out, _build_options(args), per_dataset=args.per_dataset, on_progress=advance
        )
    _show_folder(folder)
    return 0


def _mini_base(args: argparse.Namespace) -> int:
    from regreason_plugin.conversations.corpus import make_untrained_base

    with console.status("the corpus, a tokenizer, random weights"):
        make_untrained_base(args.out)
    console.print(f"An untrained tiny model and its corpus: {args.out}", highlight=False)
    return 0


def _import(args: argparse.Namespace) -> int:
    from regreason_plugin.conversations.hh import hub_pairs, import_hh, local_pairs
    from regreason_plugin.jsonl import write_records

    if args.dataset not in {"hh_chosen", "hh_rejected"}:
        raise UserError(
            f"{args.dataset} has no importer yet; hh_chosen and hh_rejected have one, and any "
            "file in the format of README's 'Conversations' can be rated as it is"
        )
    skipped: Counter[str] = Counter()
    pairs = local_pairs(args.path) if args.path else hub_pairs(args.subset, args.split)
    with _progress(args.limit or (count_lines(args.path) if args.path else None)) as advance:

        def counted() -> Iterator[Conversation]:
            for number, conversation in enumerate(import_hh(args.dataset, pairs, skipped)):
                if number == args.limit:
                    return
                advance("import", 1)
                yield conversation

        count = write_records(args.out, counted())
    if not count:
        args.out.unlink()
        raise UserError("holds no conversation that can be rated", path=args.path)
    console.print(f"{count} conversations of {args.dataset}: {args.out}", highlight=False)
    for reason, number in sorted(skipped.items()):
        console.print(f"  {number} left out: {reason}", highlight=False)
    return 0


def _annotate(args: argparse.Namespace) -> int:
    from regreason_plugin.annotation.config import annotate, read_config

    config = read_config(args.config)
    rows = sum(map(count_lines, config.conversations)) * len(AXES)
    with _progress(rows) as advance:
        count = annotate(config, lambda: advance("rate", 1))
    console.print(f"{count} ratings: {config.out}", highlight=False)
    console.print(f"Next: regreason build {config.out} --out DATA", highlight=False)
    return 0


def _build(args: argparse.Namespace) -> int:
    with _progress(count_lines(args.ratings)) as advance:
        folder = build(args.ratings, args.out, _build_options(args), on_progress=advance)
    _show_folder(folder)
    return 0


def _configs(args: argparse.Namespace) -> int:
    from regreason_plugin.configs import copy_configs

    for path in copy_configs(args.dest):
        console.print(f"Written: {path}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"What there is: {args.dest / 'README.md'}", highlight=False, soft_wrap=True)
    console.print("Next: regreason mini --out runs/demo/data", highlight=False)
    config, sweep = args.dest / "cpu" / "lora.yml", args.dest / "arms" / "explanation.yml"
    console.print(f"      axolotl train {config} --sweep {sweep}", highlight=False, soft_wrap=True)
    return 0


def _eval(arguments: list[str]) -> int:
    from regreason_plugin.evaluation.run import main as run_lm_eval

    return run_lm_eval(arguments)


def _check(arguments: list[str]) -> int:
    args, options = _check_parser().parse_known_args(arguments)
    from regreason_plugin.training.loading import quiet, read_options, read_runs

    with quiet():
        with errors.status("loading Axolotl"):
            from regreason_plugin.training.check import check_runs
            from regreason_plugin.training.check_report import print_findings, print_report

            given = read_options(str(args.config), options)
        runs = read_runs(args.config, args.sweep, given)
        with _progress(len(runs)) as advance:
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
    from regreason_plugin.report.arms import read_arms
    from regreason_plugin.report.compare import compare, print_table, write

    runs = read_arms(args.results)
    comparison = compare(runs, args.baseline)
    written = write(comparison, args.out)
    print_table(comparison)
    for run in runs:
        for old in run.superseded:
            console.print(f"Left out, a newer one exists: {old}", highlight=False)
    for path in written:
        console.print(f"Written: {path}", highlight=False)
    return 0


def _probe_plot(args: argparse.Namespace) -> int:
    from regreason_plugin.report.probe_curves import read_probes
    from regreason_plugin.report.probe_plot import print_middles, write
    from regreason_plugin.report.results import read_run

    runs = []
    for given in args.results:
        name, equals, folder = given.partition("=")
        if not equals or Path(given).exists():
            path = Path(given)
            name = (path.parent if path.is_file() else path).resolve().name
        elif not name or not folder:
            raise UserError(f"{given!r} is not NAME=RESULTS, such as label_only=runs/label_only")
        else:
            path = Path(folder)
        runs.append(read_run(name, path))
    metrics = None if args.metric is None else [name.strip() for name in args.metric.split(",")]
    probes = read_probes(runs, metrics)
    written = write(probes, args.out)
    print_middles(probes)
    if probes.left_out:
        console.print(f"Left out, not in every model: {', '.join(probes.left_out)}")
    for old in (old for run in runs for old in run.superseded):
        console.print(f"Left out, a newer one exists: {old}", highlight=False, markup=False)
    for path in written:
        console.print(f"Written: {path}", highlight=False, markup=False)
    return 0


def _demo(args: argparse.Namespace) -> int:
    from regreason_plugin.demo import run_demo

    return run_demo(args.out, _names(args.arms, "arm", list(ARMS)), args.seed)


def _study(args: argparse.Namespace) -> int:
    from regreason_plugin.study import run_study

    return run_study(args.out, args.seeds, args.per_dataset, args.jobs)


# --- arguments --------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regreason",
        description="Fine-tune language models as classifiers with explanations attached to "
        "their labels, and measure whether it helps.",
    )
    parser.add_argument("--version", action="version", version=f"regreason {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    mini = command("mini", _mini, "the built-in benchmark as a data folder; no network, no model")
    mini.add_argument("--out", type=Path, required=True, metavar="DATA")
    mini.add_argument("--per-dataset", type=_mini_size, default=1000, metavar="N")
    _add_build_options(mini)

    base = command("mini-base", _mini_base, "an untrained tiny model with its corpus, to train")
    base.add_argument("--out", type=Path, required=True, metavar="DIR")

    importer = command("import", _import, "conversations from the Hub or from a local export")
    importer.add_argument("dataset", type=lambda name: _names(name, "dataset", list(DATASETS))[0])
    importer.add_argument("--path", type=Path, help="a local file instead of the Hub")
    importer.add_argument("--out", type=Path, required=True, metavar="FILE")
    importer.add_argument("--subset", default="helpful-base", help="of HH-RLHF on the Hub")
    importer.add_argument("--split", default="train", help="of the Hub's dataset")
    importer.add_argument("--limit", type=_positive, help="stop after so many conversations")

    annotate = command("annotate", _annotate, "rate conversations with an ensemble of raters")
    annotate.add_argument("config", type=Path, metavar="CONFIG.yml")

    build = command("build", _build, "ratings to a data folder: split, and one file an arm")
    build.add_argument("ratings", type=Path)
    build.add_argument("--out", type=Path, required=True, metavar="DATA")
    _add_build_options(build)

    configs = command("configs", _configs, "the Axolotl configs, for who has no checkout")
    configs.add_argument(
        "--dest", type=Path, default=Path(FOLDER), metavar="DIR", help=f"default: {FOLDER}"
    )

    # Listed for --help; `main` hands its arguments to lm_eval untouched.
    command("eval", lambda _: 0, "lm_eval with its own flags, our model and tasks at hand")

    # Listed for --help; `main` hands its arguments to `_check`.
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

    probe_plot = command("probe-plot", _probe_plot, "entropies by layer of several models, drawn")
    probe_plot.add_argument(
        "results", nargs="+", metavar="NAME=RESULTS", help="without NAME= the folder's name"
    )
    probe_plot.add_argument("--metric", metavar="A,B", help="default: all that every model has")
    probe_plot.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="default: here")

    demo = command("demo", _demo, "all of it, on the mini benchmark, on a CPU")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR")
    demo.add_argument("--arms", default=",".join(PAPER_ARMS), help="a,b,c or all; the paper's four")
    demo.add_argument("--seed", type=int, default=0)

    study = command("study", _study, "the paper's question at small scale, on a CPU, in hours")
    study.add_argument("--out", type=Path, default=Path("runs/study"), metavar="DIR")
    study.add_argument("--seeds", type=_positive, default=5, metavar="N", help="a condition")
    study.add_argument("--per-dataset", type=_mini_size, default=200, metavar="N")
    study.add_argument("--jobs", type=_positive, metavar="N", help="at once; default: the cores")
    return parser


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
        "--processes", type=_positive, default=1, metavar="N", help="GPUs; default 1"
    )
    return parser


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="of the split and of every draw")
    parser.add_argument("--arms", default="all", help="a,b,c or all (default)")
    parser.add_argument("--order", choices=ORDERS, default=ORDERS[0])
    parser.add_argument(
        "--mismatched",
        choices=("any", "same_label"),
        default="any",
        help="where arm mismatched takes its explanations from",
    )
    parser.add_argument("--tokenizer", help="folder or Hub name; lengths are then in tokens")
    parser.add_argument(
        "--max-prompt-tokens",
        type=_positive,
        metavar="N",
        help="cut longer prompts (in words without --tokenizer)",
    )
    parser.add_argument(
        "--max-target-tokens",
        type=_positive,
        metavar="M",
        help="cut longer explanations so that label and explanation fit; the other arms match "
        "their length to within one word (in words without --tokenizer)",
    )
    parser.add_argument(
        "--scopes",
        metavar="axis,setting",
        help="also one file an axis, or one a setting, for a model of its own",
    )


def _build_options(args: argparse.Namespace) -> BuildOptions:
    return BuildOptions(
        seed=args.seed,
        order=args.order,
        arms=_names(args.arms, "arm", list(ARMS)),
        mismatched=args.mismatched,
        tokenizer=args.tokenizer,
        max_prompt=args.max_prompt_tokens,
        max_target=args.max_target_tokens,
        scopes=_names(args.scopes, "scope", list(SCOPE_KINDS)) if args.scopes else (),
    )


def _names(given: str, kind: str, known: list[str]) -> tuple[str, ...]:
    names = known if given == "all" else [name.strip() for name in given.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    return tuple(name for name in known if name in names)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _mini_size(text: str) -> int:
    number = _positive(text)
    if number < 30:
        raise argparse.ArgumentTypeError("the mini benchmark needs 30 conversations a dataset")
    return number


# --- what is printed ----------------------------------------------------------------------


@contextmanager
def _progress(total: int | None = None) -> Iterator[Callable[[str, int], object]]:
    """A progress line a stage: yields ``advance(stage, rows)``; every stage has ``total``."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as bar:
        stages = {}

        def advance(stage: str, rows: int) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=total)
            bar.advance(stages[stage], rows)

        yield advance


def _show_folder(folder: DataFolder) -> None:
    manifest = folder.manifest
    counts = ", ".join(f"{count.rows} {split}" for split, count in manifest.counts.items())
    console.print(f"{folder.path}: {counts} rows ({folder.origin} data)", highlight=False)
    unit = manifest.limits.unit
    for arm, length in manifest.lengths.items():
        mean = length.tokens_mean if unit == "tokens" else length.words_mean
        console.print(f"  {arm:<14} {mean:6.1f} {unit} after the label", highlight=False)
    for what, number in manifest.cut.items():
        if number:
            console.print(f"  {number} times the {what} had to be cut", highlight=False)
    if manifest.note:
        console.print(f"  {manifest.note}", highlight=False)
    console.print(f"Manifest: {folder.path / 'manifest.json'}", highlight=False)
