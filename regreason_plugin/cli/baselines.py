"""The command `baselines`: simpler classifiers, trained and scored on the same rows."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from regreason_plugin.cli.console import console, names, positive, say
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.baselines import METHODS


def add_baselines(baselines: argparse.ArgumentParser) -> None:
    """Add the arguments of `baselines`."""
    baselines.add_argument(
        "data", type=Path, metavar="DATA", help="the data folder that the arms were trained on"
    )
    baselines.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="RESULTS",
        help="the folder for the results, one subfolder for each method",
    )
    baselines.add_argument(
        "--methods",
        default="all",
        metavar="A,B",
        help=f"which methods to run; default: {','.join(METHODS)}",
    )
    baselines.add_argument(
        "--model", metavar="BASE", help="the base model that the arms were trained from"
    )
    baselines.add_argument(
        "--tasks", metavar="A,B", help="which lm-eval tasks to score; default: all tasks of DATA"
    )
    baselines.add_argument(
        "--seeds",
        type=_seeds,
        default=(1, 2, 3),
        metavar="1,2,3",
        help="the training seeds of method head; default: 1,2,3",
    )
    baselines.add_argument(
        "--epochs",
        type=positive,
        default=3,
        metavar="N",
        help="the most epochs of method head; validation loss chooses the best; default: 3",
    )
    baselines.add_argument(
        "--learning_rate",
        type=float,
        default=2e-4,
        metavar="X",
        help="the learning rate of method head; default: 0.0002",
    )
    baselines.add_argument(
        "--batch_size",
        type=positive,
        default=16,
        metavar="N",
        help="the batch size of method head; default: 16",
    )
    baselines.add_argument(
        "--include_path",
        type=Path,
        metavar="DIR",
        help="the folder of your own task's lm-eval files; default: the folder NAME/ here",
    )
    baselines.add_argument(
        "--apply_chat_template",
        action="store_true",
        help="use the model's chat template, if the arms were scored with it",
    )


def _seeds(text: str) -> tuple[int, ...]:
    seeds = tuple(dict.fromkeys(int(seed) for seed in text.split(",")))
    if min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"{min(seeds)} is less than 0")
    return seeds


def run_baselines(args: argparse.Namespace) -> int:
    """Train and score simpler classifiers on the same rows.

    Reads DATA, fits TF-IDF with logistic regression and a classification head
    with LoRA, and prompts the untrained base model with and without examples.
    Writes the results below --out, with what each method costs; `compare` takes
    them as arms (all but few_shot, whose prompts differ).

    Example:
        regreason baselines runs/tickets/data --out runs/tickets/results --methods tfidf
    """
    from regreason_plugin.data_folder.folder import open_data_folder
    from regreason_plugin.evaluate.baselines import run
    from regreason_plugin.evaluate.baselines.table import print_outcomes, read_outcome
    from regreason_plugin.evaluate.baselines.training_rows import tasks_of
    from regreason_plugin.evaluate.baselines.work import Work

    methods = names(args.methods, "method", list(METHODS))
    folder = open_data_folder(args.data)
    asked = args.tasks and tuple(name.strip() for name in args.tasks.split(","))
    tasks = list(tasks_of(folder, asked))
    if args.include_path is not None and not args.include_path.is_dir():
        raise UserError("--include_path is not a folder", path=args.include_path)
    work = Work(
        method="",
        data=args.data,
        out=args.out,
        tasks=tuple(tasks) if asked else None,
        model=args.model,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        include_path=args.include_path,
        apply_chat_template=args.apply_chat_template,
    )
    if not run.run_baselines(folder, args.out, methods, args.seeds, work):
        return 1
    console.print()
    print_outcomes([read_outcome(args.out, name, tasks) for name in methods], len(tasks), console)
    pairs = [f"{name}={args.out / name}" for name in methods if name != "few_shot"]
    if pairs:
        say(
            f"Next: regreason compare label_only=YOUR_RESULTS {shlex.join(pairs)} "
            "--baseline label_only --out comparison"
        )
    return 0
