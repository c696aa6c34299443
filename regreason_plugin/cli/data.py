"""The commands that make data: conversations and data folders."""

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
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.data_folder.build import build, build_task
from regreason_plugin.data_folder.card import CARD
from regreason_plugin.data_folder.folder import DataFolder, Leaks, open_data_folder
from regreason_plugin.data_folder.row_writer import BuildOptions
from regreason_plugin.data_folder.scopes import SCOPE_KINDS
from regreason_plugin.data_folder.split import SPLITS, Split

# In place of a file, for `build`.
MINI = "mini"


def add_import(importer: argparse.ArgumentParser) -> None:
    """Add the arguments of `import`."""
    importer.add_argument("dataset", type=lambda name: names(name, "dataset", list(DATASETS))[0])
    importer.add_argument("--path", type=Path, help="a local file instead of the Hub")
    importer.add_argument("--out", type=Path, required=True, metavar="FILE")
    importer.add_argument("--limit", type=positive, metavar="N", help="the first N conversations")
    importer.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help="with --limit: a sample of N instead, whatever the order; reads the whole source",
    )
    importer.add_argument("--subset", help="of the Hub's dataset; HH-RLHF: helpful-base by default")
    importer.add_argument("--split", help="of the Hub's dataset; train by default")
    importer.add_argument(
        "--strict", action="store_true", help="stop at a broken row instead of counting it"
    )


def run_import(args: argparse.Namespace) -> int:
    """Fetch conversations of a dataset from the Hub or from a local export.

    Reads the source's own format, cleans and groups it, and writes one
    conversation a line to --out, ready for `annotate`.

    Example:
        regreason import hh_chosen --path helpful-base-test.jsonl.gz --out chosen.jsonl
    """
    from regreason_plugin.data.importing import import_dataset, open_source

    if args.seed is not None and args.limit is None:
        raise UserError("--seed draws a sample; say with --limit how many conversations")
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
    say(f"  {done.groups} groups, each of which stays on one side of a split")
    for reason, number in sorted(done.left_out.items()):
        say(f"  {number} left out: {reason}")
    say(f"Source: {SOURCES[args.dataset].home}; licence: {SOURCES[args.dataset].licence}")
    say(f"Next: name {args.out} in a CONFIG.yml, then regreason annotate CONFIG.yml")
    return 0


def add_build(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `build`."""
    parser.add_argument(
        "source",
        # A file of that name is ./mini.
        type=lambda text: text if text == MINI else Path(text),
        metavar="SOURCE",
        help=f"a ratings file, the task.yml of a table, or {MINI}, the built-in benchmark",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DATA")
    parser.add_argument(
        "--per-dataset",
        type=mini_size,
        metavar="N",
        help=f"for {MINI}: conversations a dataset; default: 1000",
    )
    parser.add_argument(
        "--seed", type=int, help="of the split and of every draw; default 0, or the task's own"
    )
    parser.add_argument(
        "--at-most",
        type=_split_sizes,
        default={},
        metavar="train=N,test=M",
        help="keep only so many texts of a split, in whole groups; the test texts are then the "
        "same for any N",
    )
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
        type=positive,
        metavar="N",
        help="cut longer prompts (in words without --tokenizer)",
    )
    parser.add_argument(
        "--max-target-tokens",
        type=positive,
        metavar="M",
        help="cut longer explanations so that label and explanation fit; the other arms match "
        "their length to within one word (in words without --tokenizer)",
    )
    parser.add_argument(
        "--leaks",
        choices=get_args(Leaks),
        default="keep",
        help="what happens to the sentences of an explanation that name a label",
    )
    parser.add_argument(
        "--scopes",
        metavar="axis,setting",
        help="also one file an axis, or one a setting, for a model of its own",
    )


def _split_sizes(text: str) -> dict[Split, int]:
    """Numbers by split, as ``train=900,test=600``."""
    sizes: dict[Split, int] = {}
    for pair in text.split(","):
        name, _, number = pair.partition("=")
        if name not in SPLITS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SPLITS)}")
        sizes[name] = positive(number)
    return sizes


def run_build(args: argparse.Namespace) -> int:
    """Build the data folder that training and scoring read.

    Reads a ratings file, the task.yml of a table, or generates the mini
    benchmark (no network, no model); splits it by group, makes the text of
    every arm, and writes train/, validation/, test.jsonl, a manifest and a card
    to --out.

    Example:
        regreason build ratings.jsonl --out data --arms label_only,explanation
    """
    if args.source == MINI:
        _build_mini(args)
    elif args.per_dataset is not None:
        raise UserError(f"--per-dataset is for {MINI}; leave it out")
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
    _show_folder(folder)


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
            say(f"  {number} times the {what} had to be cut")
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
    push.add_argument("data", type=Path, metavar="DATA")
    push.add_argument("--repo", required=True, metavar="ORG/NAME", help="made if it is not there")
    push.add_argument("--private", action="store_true", help="if it is made: for you alone")


def run_push(args: argparse.Namespace) -> int:
    """Upload a data folder and its card to a dataset repository of the Hub.

    Reads DATA and checks every file against the manifest first; writes nothing
    on this machine.

    Example:
        regreason push data --repo my-lab/ratings --private
    """
    from regreason_plugin.data_folder.push import push

    pushed = push(open_data_folder(args.data), args.repo, private=args.private)
    say(f"{len(pushed.files)} files: {pushed.url}")
    for name in pushed.left_out:
        say(f"  left out, not in the manifest: {name}")
    return 0
