"""The command `task new`, which makes a task out of a table."""

from __future__ import annotations

import argparse
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich import box
from rich.table import Table
from rich.text import Text

from regreason_plugin.cli.console import console, progress, say
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.printable import one_line
from regreason_plugin.core.splits import SPLITS, OnOverlap
from regreason_plugin.task.shipped_configs import FOLDER, shipped

if TYPE_CHECKING:
    from regreason_plugin.core.task_file import Columns, Data, SplitRule, Task
    from regreason_plugin.data.labelled_table import Counts, LookAlikes
    from regreason_plugin.task.table_summary import TableSummary, Tokenizer

# How many labels the printed table shows, and the width of its bars in characters.
_SHOWN = 30
_BAR = 24
# The `sequence_len` of the Axolotl config that is written.
_SEQUENCE_LEN = 1024


def add_task(new: argparse.ArgumentParser) -> None:
    """Add the arguments of `task`."""
    new.add_argument("new", choices=["new"], metavar="new", help="make a new task")
    new.add_argument(
        "name", metavar="NAME", help="the task's name: lower-case letters, digits and _"
    )
    new.add_argument(
        "--data",
        required=True,
        metavar="FILE_OR_HUB_ID",
        help="the table: a .csv, .tsv, .jsonl, .json or .parquet file, also with .gz, or the id of "
        "a Hub dataset",
    )
    new.add_argument(
        "--text", required=True, metavar="COL", help="the column with the text to classify"
    )
    new.add_argument("--label", required=True, metavar="COL", help="the column with the label")
    new.add_argument(
        "--explanation", metavar="COL", help="the column that says why the text has its label"
    )
    new.add_argument(
        "--id", metavar="COL", help="the column with a unique id; default: a hash of the text"
    )
    new.add_argument(
        "--group",
        metavar="COL",
        help="the column whose rows with the same value must stay in the same split, such as a "
        "customer",
    )
    new.add_argument(
        "--split",
        metavar="COL",
        help="the column that says in which split a row is: train, validation (or val, valid, dev, "
        "eval) or test; default: `build` draws the splits",
    )
    new.add_argument(
        "--test",
        metavar="FILE_OR_SPLIT",
        help="your own test set, as a file with the same columns or a split of the Hub dataset; "
        "--data then has the train rows",
    )
    new.add_argument(
        "--validation",
        metavar="FILE_OR_SPLIT",
        help="your own validation set, beside --test; default: validation is drawn from the train "
        "rows",
    )
    new.add_argument(
        "--on-overlap",
        choices=get_args(OnOverlap),
        default="refuse",
        help="with splits of your own: refuse (default) a text or a group that is in two of them, "
        "or drop such rows from train and validation and keep test whole",
    )
    new.add_argument(
        "--ordinal",
        metavar="LABEL,LABEL,...",
        help="the labels are an ordered scale; name all of them, from low to high",
    )
    alike = new.add_mutually_exclusive_group()
    alike.add_argument(
        "--merge-labels",
        action="store_true",
        help="merge labels that look the same (Good and good, or a letter of another script) into "
        "the most frequent spelling; without this flag or --keep-labels such labels are refused",
    )
    alike.add_argument(
        "--keep-labels",
        action="store_true",
        help="keep labels that look the same as different labels",
    )
    new.add_argument(
        "--out", type=Path, metavar="DIR", help="the folder to write; default: a folder NAME here"
    )
    new.add_argument(
        "--model",
        metavar="BASE",
        help="the base model to train, a folder or a Hub name; default: the tiny random model, "
        "for trials",
    )
    new.add_argument(
        "--subset",
        metavar="NAME",
        help="which subset of the Hub dataset to read, if it has several",
    )
    new.add_argument(
        "--hub-split",
        default="train",
        metavar="NAME",
        help="which split of the Hub dataset to read; default: train",
    )


def run_task(args: argparse.Namespace) -> int:
    """Make a classification task out of a table (`task new`).

    Reads a table with a text column and a label column, and prints its labels,
    lengths and duplicates. Writes one folder with task.yml, an Axolotl config,
    the lm_eval task and a README with the commands to type next.

    Example:
        regreason task new tickets --data tickets.csv --text message --label queue
    """
    from regreason_plugin.core.look_alikes import difference
    from regreason_plugin.core.task_file import Task, check_name
    from regreason_plugin.task.label_order import declared_order, inferred_order
    from regreason_plugin.task.new_task import (
        NewTask,
        check_dest,
        check_is_free,
        default_end,
        default_prompt,
        write_task,
    )
    from regreason_plugin.task.table_summary import local_tokenizer, summarise

    with _said_in_one_sentence():
        name, data, columns = check_name(args.name), _data(args), _columns(args)
    dest = args.out or Path(name)
    base = args.model or _tiny_base()
    check_dest(dest)
    with console.status("reading lm-eval's task names and the tokenizer"):
        check_is_free(name)
        tokenizer = local_tokenizer(base)
    twins: LookAlikes = "merge" if args.merge_labels else "keep" if args.keep_labels else "refuse"
    with progress() as advance:
        length = tokenizer.length if tokenizer else None
        seen = summarise(data, columns, length, lambda: advance("read", 1), twins, args.on_overlap)
    found = seen.counts.labels
    order = declared_order(args.ordinal, found) if args.ordinal else inferred_order(found)
    with _said_in_one_sentence():
        task = Task(
            name=name,
            title=name.replace("_", " ").strip(),
            labels=order.labels,
            label_end=default_end(order.labels),
            ordinal=order.ordinal,
            prompt=default_prompt(args.label, order.labels, order.ordinal),
            data=data,
            columns=columns,
            values=seen.counts.merged,
            look_alikes="keep" if args.keep_labels else "refuse",
            split=_split_rule(args),
        )
    counts = seen.counts
    own_validation = "validation" in counts.splits
    new = NewTask(task, dest, base, counts.kept, counts.explained, own_validation)
    written = write_task(new)
    _show(seen, task)
    _show_too_long(seen, task, tokenizer, base)
    say(order.why)
    for label, other in seen.counts.merged.items():
        say(f"Merged into {other!r}, because they look the same: {difference(label, other)}.")
    if task.label_end:
        say(
            f"One label is a prefix of another, so every label ends with {task.label_end!r} "
            "(label_end in task.yml)."
        )
    say("")
    say(f"{len(written)} files: {dest}")
    say(f"Next: read the prompt in {dest / 'task.yml'}, then type the commands of")
    say(f"      {dest / 'README.md'}; the first is")
    say(f"      regreason build {dest / 'task.yml'} --out runs/{name}/data")
    return 0


@contextmanager
def _said_in_one_sentence() -> Iterator[None]:
    """Turn what the task's own checks refuse into a `UserError`."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(first["msg"].removeprefix("Value error, ")) from None
    except ValueError as error:
        raise UserError(str(error)) from None


def _tiny_base() -> str:
    """The shipped tiny model, as a path relative to the current folder where possible."""
    here = Path(FOLDER) / "cpu" / "tiny-base"
    return here.as_posix() if here.is_dir() else (shipped() / "cpu" / "tiny-base").as_posix()


def _data(args: argparse.Namespace) -> Data:
    """The table: a file, or a Hub dataset where --data cannot be a file."""
    from regreason_plugin.core.task_file import Data
    from regreason_plugin.data.row_readers import TABLES

    path = Path(args.data)
    hub_like = args.data.count("/") <= 1 and not args.data.startswith((".", "/", "~"))
    if os.path.lexists(path) or args.data.lower().endswith(TABLES) or not hub_like:
        return Data(path=path, test=args.test, validation=args.validation)
    return Data(
        hub=args.data,
        config=args.subset,
        split=args.hub_split,
        test=args.test,
        validation=args.validation,
    )


def _split_rule(args: argparse.Namespace) -> SplitRule:
    """The rule of the new task; Task refuses one for overlaps if no splits are the user's own."""
    from regreason_plugin.core.task_file import SplitRule

    return SplitRule() if args.on_overlap == "refuse" else SplitRule(on_overlap=args.on_overlap)


def _columns(args: argparse.Namespace) -> Columns:
    from regreason_plugin.core.task_file import Columns

    return Columns(**{name: getattr(args, name) for name in Columns.model_fields})


def _show(seen: TableSummary, task: Task) -> None:
    counts = seen.counts
    say(f"{task.data}: {counts.rows} rows, {len(task.labels)} labels, {counts.groups} groups")
    console.print(_labels_table(seen, task.labels))
    console.print(_lengths_table(seen))
    for what, number in (
        ("dropped, because an earlier row has the same text and label", counts.duplicates),
        ("dropped, because they have no text", counts.blank),
        ("dropped, because they have no label", counts.unlabelled),
        ("kept, but with only one or two words", seen.near_empty),
    ):
        say(f"  {what}: {number}")
    if task.columns.explanation:
        say(f"  without an explanation: {counts.kept - counts.explained}")
    if task.own_splits:
        _show_splits(counts, task.labels)
    else:
        _show_small(counts, task.labels)


def _show_splits(counts: Counts, labels: tuple[str, ...]) -> None:
    """Print what is in each split of the user's own."""
    from regreason_plugin.data_folder.folder import absence_note

    rows = ", ".join(f"{counts.splits[s].total()} {s}" for s in SPLITS if s in counts.splits)
    drawn = "" if "validation" in counts.splits else "; build draws validation from the train rows"
    say(f"  your own splits: {rows} rows{drawn}")
    for name, split in counts.spellings.items():
        say(f"    read as {split}: {name!r}")
    if counts.overlap:
        dropped = " and ".join(f"{n} {split}" for split, n in counts.overlap.items())
        say(f"    left out, because test or validation has their text or group: {dropped}")
    for split in counts.splits:
        absent = [label for label in labels if not counts.splits[split][label]]
        if absent and split == "train":
            say(f"    no train row has the label {absent[0]!r}; build will refuse it")
        elif absent:
            say(f"    {absence_note(split, absent)}")


def _show_small(counts: Counts, labels: tuple[str, ...]) -> None:
    """Say which labels are too small for the three splits that build draws."""
    from regreason_plugin.data_folder.document_index import few_groups

    groups = {label: len(counts.label_groups[label]) for label in labels}
    small = [label for label in labels if groups[label] < len(SPLITS)]
    if small:
        said = few_groups(small, counts.labels[small[0]], groups[small[0]])
        say(f"  build will refuse this table: {said}")


def _show_too_long(seen: TableSummary, task: Task, tokenizer: Tokenizer | None, base: str) -> None:
    if tokenizer is None:
        say(f"  lengths in tokens are not measured: {base} is not on this machine")
        return
    limit = min(_SEQUENCE_LEN, tokenizer.window or _SEQUENCE_LEN)
    number = seen.too_long(task.prompt, task.labels, tokenizer.length, limit)
    say(f"  longer than {limit} tokens with prompt, label and explanation: {number}")
    if number:
        say("    these would stop the training: raise sequence_len if the model can read more, or")
        say(f"    cut them with regreason build --tokenizer {base} --max-prompt-tokens N")


def _labels_table(seen: TableSummary, labels: tuple[str, ...]) -> Table:
    counts = seen.counts.labels
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("label", overflow="fold", max_width=48)
    for head in ("rows", "share"):
        table.add_column(head, justify="right")
    table.add_column("")
    most = max(counts.values())
    for label in labels[:_SHOWN]:
        bar = "█" * max(1, round(_BAR * counts[label] / most))
        share = counts[label] / counts.total()
        # As Text: rich would read a label in brackets as markup.
        table.add_row(Text(one_line(label)), str(counts[label]), f"{share:.1%}", Text(bar, "cyan"))
    if rest := labels[_SHOWN:]:
        number = sum(counts[label] for label in rest)
        table.add_row(Text(f"{len(rest)} more"), str(number), f"{number / counts.total():.1%}", "")
    return table


def _lengths_table(seen: TableSummary) -> Table:
    from regreason_plugin.task.table_summary import lengths

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("length")
    for head in ("median", "95 %", "longest"):
        table.add_column(head, justify="right")

    def add(what: str, numbers: array[int]) -> None:
        if numbers:
            table.add_row(what, *map(str, lengths(numbers)))

    add("text, words", seen.words)
    add("text, tokens", seen.tokens)
    add("explanation, words", seen.explanation_words)
    return table
