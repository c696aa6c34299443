"""The commands that write data: `import`, `build` and `push`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from regreason_plugin.cli.console import (
    mini_size,
    names,
    positive,
    progress,
    say,
)
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import count_lines
from regreason_plugin.core.paper import DATASETS, SOURCES
from regreason_plugin.core.prompt import ORDERS
from regreason_plugin.core.splits import SPLITS, Split
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.data_folder.build import build, build_task
from regreason_plugin.data_folder.card import CARD
from regreason_plugin.data_folder.folder import DataFolder, Leaks, Manifest, open_data_folder
from regreason_plugin.data_folder.row_writer import BuildOptions
from regreason_plugin.data_folder.scopes import SCOPE_KINDS

# The source of `build` that stands for the generated benchmark instead of a file.
MINI = "mini"


def add_import(importer: argparse.ArgumentParser) -> None:
    """Add the arguments of `import`."""
    importer.add_argument(
        "dataset",
        type=lambda name: names(name, "dataset", list(DATASETS))[0],
        metavar="DATASET",
        help=f"one of {', '.join(DATASETS)}",
    )
    importer.add_argument(
        "--path",
        type=Path,
        metavar="FILE",
        help="read this local export instead of downloading the dataset from the Hub",
    )
    importer.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the file to write, one conversation a line (.jsonl)",
    )
    importer.add_argument(
        "--limit", type=positive, metavar="N", help="import only the first N conversations"
    )
    importer.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help="with --limit: draw N conversations at random instead of the first N; reads the whole "
        "source",
    )
    importer.add_argument(
        "--subset",
        metavar="NAME",
        help="which subset of the Hub dataset to download; default for HH-RLHF: helpful-base",
    )
    importer.add_argument(
        "--split", metavar="NAME", help="which split of the Hub dataset to download; default: train"
    )
    importer.add_argument(
        "--strict",
        action="store_true",
        help="stop at the first broken row instead of skipping and counting broken rows",
    )


def run_import(args: argparse.Namespace) -> int:
    """Import the conversations of a dataset from the Hub or from a local export.

    Reads the dataset in the format in which it is published, cleans the texts,
    puts conversations that must stay on one side of a split into one group, and
    writes one conversation a line to --out. `annotate` reads that file next.

    Example:
        regreason import hh_chosen --path helpful-base-test.jsonl.gz --out chosen.jsonl
    """
    from regreason_plugin.data.importing import import_dataset, open_source

    if args.seed is not None and args.limit is None:
        raise UserError("--seed draws a random sample; add --limit N for its size")
    check_not_input(args.out, [args.path])
    source = open_source(args.dataset, path=args.path, subset=args.subset, split=args.split)
    first = args.limit if args.seed is None else None
    with progress(first or source.total) as advance:
        done = import_dataset(
            args.dataset,
            source,
            args.out,
            limit=args.limit,
            seed=args.seed,
            strict=args.strict,
            on_row=lambda: advance("import", 1),
        )
    drawn = f", drawn from {done.drawn_from}" if done.drawn_from is not None else ""
    say(f"{done.conversations} conversations of {args.dataset}{drawn}: {args.out}")
    say(f"  {done.groups} groups; a split never divides a group")
    for reason, number in sorted(done.left_out.items()):
        say(f"  {number} left out: {reason}")
    say(f"Source: {SOURCES[args.dataset].home}; licence: {SOURCES[args.dataset].licence}")
    say(f"Next: list {args.out} under `conversations` in a CONFIG.yml, then type")
    say("      regreason annotate CONFIG.yml")
    return 0


def add_build(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `build`."""
    parser.add_argument(
        "source",
        # (A file with that name can be given as ./mini.)
        type=lambda text: text if text == MINI else Path(text),
        metavar="SOURCE",
        help=f"a ratings file, the task.yml of a table, or {MINI} for the generated benchmark",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DATA",
        help="the data folder to write; an older data folder there is replaced",
    )
    parser.add_argument(
        "--per-dataset",
        type=mini_size,
        metavar="N",
        help=f"for {MINI}: how many conversations to generate for each dataset; default: 1000",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help="the seed of the split and of every random draw; default: the task's own, else 0",
    )
    parser.add_argument(
        "--at-most",
        type=_split_sizes,
        default={},
        metavar="train=N,test=M",
        help="keep at most N texts of a split, in whole groups; the number for train does not "
        "change which texts are in test",
    )
    parser.add_argument(
        "--arms",
        default="all",
        metavar="A,B",
        help=f"which arms to write, out of {', '.join(ARMS)}; default: all",
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        default=ORDERS[0],
        help="whether the label or the explanation comes first in the target; default: label_first",
    )
    parser.add_argument(
        "--mismatched",
        choices=("any", "same_label"),
        default="any",
        help="where the arm mismatched takes its explanations from: any other row (default), or a "
        "row with the same label",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="BASE",
        help="a folder or a Hub name; lengths are then measured in its tokens instead of words",
    )
    parser.add_argument(
        "--max-prompt-tokens",
        type=positive,
        metavar="N",
        help="cut prompts to N tokens (words without --tokenizer), the oldest turns first",
    )
    parser.add_argument(
        "--max-target-tokens",
        type=positive,
        metavar="M",
        help="cut explanations so that label and explanation have at most M tokens (words without "
        "--tokenizer); the other arms match that length to within one word",
    )
    parser.add_argument(
        "--leaks",
        choices=get_args(Leaks),
        default="keep",
        help="keep (default) or remove the sentences of an explanation that name a label",
    )
    parser.add_argument(
        "--scopes",
        metavar="axis,setting",
        help="also write one training file for each axis or each setting, to train separate models",
    )


def _split_sizes(text: str) -> dict[Split, int]:
    """Read ``train=900,test=600`` as a number for each split."""
    sizes: dict[Split, int] = {}
    for pair in text.split(","):
        name, _, number = pair.partition("=")
        if name not in SPLITS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SPLITS)}")
        sizes[name] = positive(number)
    return sizes


def run_build(args: argparse.Namespace) -> int:
    """Build the data folder that training and scoring read.

    Reads a ratings file or the table of a task.yml, or generates the mini
    benchmark (without a network or a model). Splits the rows by group, makes the
    training text of every arm, and writes train/, validation/, test.jsonl, a
    manifest and a dataset card to --out.

    Example:
        regreason build ratings.jsonl --out data --arms label_only,explanation
    """
    if args.source == MINI:
        _build_mini(args)
    elif args.per_dataset is not None:
        raise UserError(f"--per-dataset is for {MINI} only; leave it out")
    elif args.source.suffix in {".yml", ".yaml"}:
        _build_task(args)
    else:
        with progress(count_lines(args.source)) as advance:
            folder = build(args.source, args.out, _build_options(args), on_progress=advance)
        _show_folder(folder)
    return 0


def _build_mini(args: argparse.Namespace) -> None:
    from regreason_plugin.data.mini import MINI_SETTINGS
    from regreason_plugin.data_folder.mini import build_mini

    size = args.per_dataset or 1000
    with progress(size * len(MINI_SETTINGS)) as advance:
        folder = build_mini(args.out, _build_options(args), per_dataset=size, on_progress=advance)
    _show_folder(folder)


def _build_task(args: argparse.Namespace) -> None:
    with progress() as advance:
        folder, counts = build_task(
            args.source, args.out, _build_options(args), seed=args.seed, on_progress=advance
        )
    dropped = {
        "without text": counts.blank,
        "without a label": counts.unlabelled,
        "the same text and label again": counts.duplicates,
    }
    shown = ", ".join(f"{count:,} {what}" for what, count in dropped.items() if count)
    say(f"{counts.rows:,} rows read" + (f"; left out: {shown}" if shown else ""))
    for line in split_notes(folder.manifest):
        say(f"  {line}")
    _show_folder(folder)
    for note in folder.absence_notes("validation", "test"):
        say(f"Note: {note}")


def split_notes(manifest: Manifest) -> list[str]:
    """How the rows of a user's own table came into their splits, one sentence a line."""
    own, stratified = manifest.own_splits, manifest.stratified
    lines = []
    if own is not None:
        lines.append(
            f"splits as in the column {own.column!r}" if own.column else "splits as in the files"
        )
        if own.validation == "drawn":
            lines[0] += "; validation is drawn from the train rows"
        for split in SPLITS:
            names = [repr(name) for name, meant in own.spellings.items() if meant == split]
            if names:
                lines.append(f"read as {split}: {', '.join(names)}")
        if own.dropped:
            rows = " and ".join(f"{number:,} {split}" for split, number in own.dropped.items())
            lines.append(
                "left out (on_overlap: drop), because test or validation has their text or group: "
                f"{rows}"
            )
    if stratified:
        lines.append(
            "drawn by label, because a split without regard to labels would leave "
            f"{', '.join(map(repr, stratified))} out of train, validation or test"
        )
    return lines


def _build_options(args: argparse.Namespace) -> BuildOptions:
    return BuildOptions(
        seed=args.seed or 0,
        order=args.order,
        arms=names(args.arms, "arm", list(ARMS)),
        mismatched=args.mismatched,
        tokenizer=args.tokenizer,
        max_prompt=args.max_prompt_tokens,
        max_target=args.max_target_tokens,
        scopes=names(args.scopes, "scope", list(SCOPE_KINDS)) if args.scopes else (),
        leaks=args.leaks,
        conversations=args.at_most,
    )


def _show_folder(folder: DataFolder) -> None:
    manifest = folder.manifest
    counts = ", ".join(f"{count.rows} {split}" for split, count in manifest.counts.items())
    say(f"{folder.path}: {counts} rows ({folder.origin} data)")
    unit = manifest.limits.unit
    for arm, length in manifest.lengths.items():
        mean = length.tokens_mean if unit == "tokens" else length.words_mean
        say(f"  {arm:<14} {mean:6.1f} {unit} after the label")
    for what, number in manifest.cut.items():
        if number:
            say(f"  {what}: cut in {number} places to fit the limits")
    if leaking := manifest.leaked["rows"]:
        own = manifest.leaked["own_label"]
        done = "removed" if manifest.leaks == "remove" else "kept; --leaks remove takes them out"
        say(f"  {leaking} explanations name a label, {own} their own: {done}")
    if dropped := manifest.leaked["dropped"]:
        say(f"  {dropped} rows dropped: no explanation is left to learn from")
    if manifest.note:
        say(f"  {manifest.note}")
    say(f"Manifest: {folder.path / 'manifest.json'}")
    say(f"Card: {folder.path / CARD}")


def add_push(push: argparse.ArgumentParser) -> None:
    """Add the arguments of `push`."""
    push.add_argument(
        "data", type=Path, metavar="DATA", help="the data folder that `regreason build` wrote"
    )
    push.add_argument(
        "--repo",
        required=True,
        metavar="ORG/NAME",
        help="the dataset repository; it is created if it does not exist",
    )
    push.add_argument(
        "--private", action="store_true", help="if the repository is created, make it private"
    )


def run_push(args: argparse.Namespace) -> int:
    """Upload a data folder and its card to a dataset repository of the Hub.

    Checks every file of DATA against the manifest first, and uploads only files
    that the manifest lists. Writes nothing on this machine.

    Example:
        regreason push data --repo my-lab/ratings --private
    """
    from regreason_plugin.data_folder.push import push

    pushed = push(open_data_folder(args.data), args.repo, private=args.private)
    say(f"{len(pushed.files)} files: {pushed.url}")
    for name in pushed.left_out:
        say(f"  not uploaded, because the manifest does not list it: {name}")
    return 0
