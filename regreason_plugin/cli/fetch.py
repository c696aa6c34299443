"""The command `fetch`, which writes files to start from."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

from regreason_plugin.cli.console import say
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import RATEABLE, TOPICAL_USR
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.task.shipped_configs import FOLDER


def add_fetch(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fetch`."""
    parser.add_argument("files", choices=[*_OF_PACKAGE, *_PUBLISHED], help="which files to write")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="where to write: a file for esnli (default: runs/esnli.csv), a folder for prompts, "
        f"configs and topical-usr (default: prompts, {FOLDER}, runs/topical-usr)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="for esnli and topical-usr: read a copy that you downloaded instead of the network",
    )


def run_fetch(args: argparse.Namespace) -> int:
    """Write files to start from: prompts, configs, or a public data set with people's labels.

    `prompts` writes the raters' prompts and commented configs for `annotate` and
    `explain`. `configs` writes the folder axolotl_configs/, for installations
    without a checkout. Both come from the installed package. `esnli` downloads the
    dev split of e-SNLI and writes it as a table for `task new`: premise,
    hypothesis, both as one text, label, and three people's explanations.
    `topical-usr` downloads 360 responses that people have scored, and writes them
    as conversations for `annotate`, as a golden set for `aggregate`, and as a table
    for `task new`.

    Example:
        regreason fetch esnli --out runs/esnli.csv
    """
    if args.files in _PUBLISHED:
        return _PUBLISHED[args.files](args.out, args.source)
    if args.source is not None:
        raise UserError(f"--from is only for {', '.join(_PUBLISHED)}; leave it out")
    return _OF_PACKAGE[args.files](args.out)


def _fetch_configs(out: Path | None) -> int:
    from regreason_plugin.task.shipped_configs import copy_configs

    out = out or Path(FOLDER)
    for path in copy_configs(out):
        say(f"Written: {path}")
    say(f"Guide: {out / 'README.md'}")
    say("Next: regreason build mini --out runs/demo/data")
    config, sweep = out / "cpu" / "lora.yml", out / "arms" / "explanation.yml"
    say(f"      axolotl train {config} --sweep {sweep}")
    return 0


def _fetch_prompts(out: Path | None) -> int:
    from regreason_plugin.annotate.prompts import copy_prompts

    out = out or Path("prompts")
    *prompts, explain, config = copy_prompts(out)
    say(f"{len(prompts)} prompts: {out}")
    say(f"A config with every key explained: {config}; for `regreason explain`: {explain}")
    say(f"Next: edit the prompts, write `prompts: {out}` into the config, and type")
    say(f"      regreason annotate {config} --dry-run")
    return 0


def _fetch_esnli(out: Path | None, source: Path | None) -> int:
    from regreason_plugin.data.esnli import HOME, LICENCE, write_esnli

    out = out or Path("runs/esnli.csv")
    check_not_input(out, [source])
    done = write_esnli(out, source)
    say(f"{done.rows:,} rows of e-SNLI, {done.premises:,} premises: {out}")
    if not done.as_published:
        say("  this copy differs from the published file, so results will differ too")
    say(f"Source: {HOME}; licence: {LICENCE}")
    say(f"Next: regreason task new esnli --data {shlex.quote(str(out))} --text text \\")
    say("        --label label --explanation explanation_1 --group premise")
    return 0


def _fetch_topical_usr(out: Path | None, source: Path | None) -> int:
    from regreason_plugin.annotate.topical_usr import write_topical_usr

    out = out or Path("runs/topical-usr")
    check_not_input(out, [source])
    files = write_topical_usr(out, source)
    for path in files:
        say(f"Written: {path}")
    about = RATEABLE.datasets[TOPICAL_USR]
    say(f"Source: {about.home}; licence: {about.licence}")
    folder, table = shlex.quote(str(out)), shlex.quote(str(files.table))
    say(f"Next: regreason annotate {shlex.quote(str(files.config))}")
    say(f"      regreason aggregate {folder}/ratings.jsonl --golden {folder}/golden.jsonl")
    say(f"or:   regreason task new topical_usr --data {table} --text text \\")
    say("        --label overall --group dialogue")
    return 0


_OF_PACKAGE: dict[str, Callable[[Path | None], int]] = {
    "prompts": _fetch_prompts,
    "configs": _fetch_configs,
}
_PUBLISHED: dict[str, Callable[[Path | None, Path | None], int]] = {
    "esnli": _fetch_esnli,
    "topical-usr": _fetch_topical_usr,
}
