"""The commands that make data: conversations, ratings, data folders."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from regreason_plugin.build.arms import ARMS
from regreason_plugin.build.build import build, build_task
from regreason_plugin.build.card import CARD
from regreason_plugin.build.folder import DataFolder, Leaks, open_data_folder
from regreason_plugin.build.row_writer import BuildOptions
from regreason_plugin.build.scopes import SCOPE_KINDS
from regreason_plugin.cli import aggregate, explain
from regreason_plugin.cli.console import (
    AddCommand,
    amount,
    errors,
    mini_size,
    names,
    positive,
    progress,
    say,
)
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import count_lines
from regreason_plugin.core.paper import AXES, DATASETS, SOURCES
from regreason_plugin.core.prompt import ORDERS
from regreason_plugin.core.whole_files import check_not_input


def add_commands(command: AddCommand) -> None:
    """Add them to the parser."""
    mini = command("mini", _mini, "the built-in benchmark as a data folder; no network, no model")
    mini.add_argument("--out", type=Path, required=True, metavar="DATA")
    mini.add_argument("--per-dataset", type=mini_size, default=1000, metavar="N")
    _add_build_options(mini)

    importer = command("import", _import, "conversations from the Hub or from a local export")
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

    annotate = command("annotate", _annotate, "rate conversations with an ensemble of raters")
    annotate.add_argument("config", type=Path, metavar="CONFIG.yml")
    annotate.add_argument(
        "--dry-run", action="store_true", help="calls, tokens and cost, and a prompt; ask nothing"
    )
    annotate.add_argument(
        "--budget", type=amount, metavar="X", help="stop before the store has cost more"
    )
    annotate.add_argument(
        "--retry-failed", action="store_true", help="ask again what failed in an earlier run"
    )

    prompts = command(
        "prompts", _prompts, "the raters' prompts, and configs for `annotate` and `explain`"
    )
    prompts.add_argument("--dest", type=Path, default=Path("prompts"), metavar="DIR")

    aggregate.add_command(command)
    explain.add_command(command)

    build = command("build", _build, "ratings to a data folder: split, and one file an arm")
    build.add_argument(
        "ratings", type=Path, metavar="RATINGS", help="a ratings file, or the task.yml of a table"
    )
    build.add_argument("--out", type=Path, required=True, metavar="DATA")
    _add_build_options(build)

    push = command("push", _push, "a data folder with its card to a dataset repository of the Hub")
    push.add_argument("data", type=Path, metavar="DATA")
    push.add_argument("--repo", required=True, metavar="ORG/NAME", help="made if it is not there")
    push.add_argument("--private", action="store_true", help="if it is made: for you alone")


def _mini(args: argparse.Namespace) -> int:
    from regreason_plugin.build.mini import build_mini
    from regreason_plugin.data.mini import MINI_SETTINGS

    with progress(args.per_dataset * len(MINI_SETTINGS)) as advance:
        folder = build_mini(
            args.out, _build_options(args), per_dataset=args.per_dataset, on_progress=advance
        )
    _show_folder(folder)
    return 0


def _import(args: argparse.Namespace) -> int:
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


def _annotate(args: argparse.Namespace) -> int:
    from regreason_plugin.annotate.config import read_config
    from regreason_plugin.annotate.provenance import about_path
    from regreason_plugin.annotate.run import annotate, dry_run
    from regreason_plugin.cli.annotate_progress import Watcher, show_finished, show_plan

    config = read_config(args.config)
    for file in (config.out, config.store_path, about_path(config.out)):
        check_not_input(file, [args.config, *config.conversations], "out in the config")
    if args.dry_run:
        plans = dry_run(config, retry=args.retry_failed)
        show_plan(plans, config.store_path, merging=config.merge is not None)
        return 0
    rows = sum(map(count_lines, config.conversations)) * len(AXES)
    finished = annotate(config, Watcher(errors, rows), retry=args.retry_failed, budget=args.budget)
    return show_finished(config, args.config, finished)


def _prompts(args: argparse.Namespace) -> int:
    from regreason_plugin.annotate.prompts import copy_prompts

    *prompts, explain, config = copy_prompts(args.dest)
    say(f"{len(prompts)} prompts: {args.dest}")
    say(f"A config with every key explained: {config}; for `regreason explain`: {explain}")
    say(f"Next: change them, write `prompts: {args.dest}` into the config, and")
    say(f"      regreason annotate {config} --dry-run")
    return 0


def _build(args: argparse.Namespace) -> int:
    if args.ratings.suffix in {".yml", ".yaml"}:
        return _build_task(args)
    with progress(count_lines(args.ratings)) as advance:
        folder = build(args.ratings, args.out, _build_options(args), on_progress=advance)
    _show_folder(folder)
    return 0


def _build_task(args: argparse.Namespace) -> int:
    with progress() as advance:
        folder, counts = build_task(
            args.ratings, args.out, _build_options(args), seed=args.seed, on_progress=advance
        )
    dropped = {
        "without text": counts.blank,
        "without a label": counts.unlabelled,
        "the same text and label again": counts.duplicates,
    }
    shown = ", ".join(f"{count:,} {what}" for what, count in dropped.items() if count)
    say(f"{counts.rows:,} rows read" + (f"; left out: {shown}" if shown else ""))
    _show_folder(folder)
    return 0


def _push(args: argparse.Namespace) -> int:
    from regreason_plugin.build.push import push

    pushed = push(open_data_folder(args.data), args.repo, private=args.private)
    say(f"{len(pushed.files)} files: {pushed.url}")
    for name in pushed.left_out:
        say(f"  left out, not in the manifest: {name}")
    return 0


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=int, help="of the split and of every draw; default 0, or the task's own"
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
