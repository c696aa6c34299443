"""The command `aggregate`: how far the raters agree, and which aggregator is best."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from regreason_plugin.annotate.aggregate import AGGREGATORS
from regreason_plugin.annotate.agreement import ALL, Agreement
from regreason_plugin.annotate.golden import GoldenScores
from regreason_plugin.cli.console import console, positive, progress, say
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.jsonl import count_lines, file_sha256
from regreason_plugin.core.numbers import number as _number
from regreason_plugin.core.paper import AXES


def add_aggregate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `aggregate`."""
    parser.add_argument(
        "ratings", type=Path, metavar="RATINGS", help="the ratings file that `annotate` wrote"
    )
    parser.add_argument(
        "--golden",
        type=Path,
        metavar="FILE",
        help="people's labels, one line each with id, axis and label",
    )
    parser.add_argument(
        "--by",
        metavar="NAME",
        help=f"the aggregator that makes the labels of --out: {', '.join(AGGREGATORS)}; default: "
        "the best one on --golden, or mean without --golden",
    )
    parser.add_argument(
        "--minimum",
        type=positive,
        default=1,
        metavar="N",
        help="drop rows with fewer than N usable ratings; default: 1",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the ratings with the new labels to FILE"
    )


def run_aggregate(args: argparse.Namespace) -> int:
    """Measure how far the raters agree, and make labels with another aggregator.

    Reads a ratings file and prints Krippendorff's alpha and each rater's distance
    from the mean of the others. With --golden it also prints how close each
    aggregator's labels come to people's labels. With --out it writes the ratings
    with the labels of one aggregator.

    Example:
        regreason aggregate ratings.jsonl --golden golden.jsonl --out aggregated.jsonl
    """
    from regreason_plugin.annotate.agreement import agreement
    from regreason_plugin.annotate.golden import read_golden, score_golden
    from regreason_plugin.annotate.ratings_file import read_scores, write_aggregated

    if args.by is not None and args.by not in AGGREGATORS:
        raise UserError(
            f"--by: unknown aggregator {args.by!r}; {nearest(args.by, list(AGGREGATORS))}"
        )
    if args.by is not None and args.out is None:
        raise UserError("--by chooses the aggregator for --out; add --out FILE")
    by, golden_rows = args.by, 0
    with progress(count_lines(args.ratings)) as advance:
        scores = read_scores(args.ratings, args.minimum, lambda: advance("read", 1))
        found = agreement(scores.table)
        chosen = None
        if args.golden is not None:
            golden = read_golden(args.golden, scores.settings)
            chosen = score_golden(scores.enough, golden, args.golden)
    _print_agreement(found)
    if chosen is not None:
        _print_golden(chosen)
        if by is None:
            by, golden_rows = chosen.best, chosen.rows
    if args.out is None:
        return 0
    by = by or AGGREGATORS[0]
    with progress(count_lines(args.ratings)) as advance:
        count, dropped = write_aggregated(
            args.ratings,
            file_sha256(args.ratings),
            args.out,
            by,
            args.minimum,
            golden_rows,
            lambda: advance("write", 1),
        )
    say(f"{count} ratings by {by}: {args.out}")
    for reason, number in sorted(dropped.items()):
        say(f"  {number} rows dropped: {reason}")
    say(f"Next: regreason build {args.out} --out DATA")
    return 0


def _print_agreement(found: Agreement) -> None:
    """Print both tables of agreement."""
    axes = [axis for axis in (*AXES, ALL) if axis in found.alphas[0].by_axis]
    alphas = _table(
        f"Krippendorff's alpha, ordinal, {found.rows:,} rows",
        ["among", "coders", *(AXES.get(axis, axis) for axis in axes)],
        left=1,
    )
    for alpha in found.alphas:
        numbers = [_number(alpha.by_axis.get(axis)) for axis in axes]
        alphas.add_row(Text(alpha.among), str(alpha.coders), *numbers)
    console.print(alphas)
    if not found.left_out:
        return
    left_out = _table(
        "Each rater and prompt against the mean of all others",
        ["rater", "prompt", "rows", "bias", "MAE", "exact", "QWK"],
        left=2,
    )
    previous = None
    for one in found.left_out:
        rater, prompt = one.coder
        if previous not in (None, rater):
            left_out.add_section()
        left_out.add_row(
            Text("" if rater == previous else rater),
            Text(prompt),
            f"{one.rows:,}",
            f"{round(one.bias, 3) + 0.0:+.3f}",
            *map(_number, (one.mae, one.exact, one.qwk)),
        )
        previous = rater
    console.print(left_out)


def _print_golden(found: GoldenScores) -> None:
    """Print each aggregator's agreement with people's labels, and how to read it."""
    table = _table(
        f"Labels against people's, {found.rows:,} golden rows",
        ["aggregator", "MAE", "95 %", "MSE", "exact", "QWK", ""],
        left=1,
    )
    for score in found.scores:
        low_high = score.mae_interval
        best = score.by == found.best
        table.add_row(
            score.by,
            _number(score.mae),
            "-" if low_high is None else f"{low_high[0]:.3f} to {low_high[1]:.3f}",
            *map(_number, (score.mse, score.exact, score.qwk)),
            "best" if best else "",
            style="bold green" if best else None,
        )
    console.print(table)
    names = [score.by for score in found.scores]
    missing = [name for name in AGGREGATORS if name not in names]
    if missing:
        say(f"Without {', '.join(missing)}: `pip install 'regreason[annotate]'`")
    if found.left_out:
        say(f"{found.left_out} golden rows have fewer usable ratings than --minimum.")
    say(
        f"Best: {found.best}, which has the lowest MAE (and the lowest MSE among equals). It was "
        f"chosen on these {found.rows} rows of {found.conversations} conversations, so its figures "
        "here are optimistic; measure it on other labelled rows. 95 %: a bootstrap over the "
        "conversations."
    )


def _table(title: str, columns: list[str], left: int) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        # Only names may wrap: a wrapped number could be misread.
        name_column = number < left
        justify: Literal["left", "right"] = "left" if name_column else "right"
        table.add_column(Text(name), justify=justify, no_wrap=not name_column, overflow="fold")
    return table
