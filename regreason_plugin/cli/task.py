"""The command that makes a task of one's own out of a table."""

from __future__ import annotations

import argparse
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from regreason_plugin.cli.console import console, progress, say
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.markdown import one_line
from regreason_plugin.task.shipped_configs import FOLDER, shipped

if TYPE_CHECKING:
    from regreason_plugin.core.task_file import Columns, Data, Task
    from regreason_plugin.data.labelled_table import Twins
    from regreason_plugin.task.table_summary import TableSummary, Tokenizer

# Rows of the table of labels.
_SHOWN = 30
_BAR = 24
# Of the config that is written.
_SEQUENCE_LEN = 1024


def add_task(new: argparse.ArgumentParser) -> None:
    """Add the arguments of `task`."""
    new.add_argument("new", choices=["new"], help="the only one so far")
    new.add_argument("name", metavar="NAME", help="small letters, digits and _")
    new.add_argument(
        "--data",
        required=True,
        metavar="FILE_OR_HUB_ID",
        help=".csv, .tsv, .jsonl, .json or .parquet, each also with .gz; or a dataset's id",
    )
    new.add_argument("--text", required=True, metavar="COL", help="what is classified")
    new.add_argument("--label", required=True, metavar="COL", help="its class")
    new.add_argument("--explanation", metavar="COL", help="why it is that class")
    new.add_argument("--id", metavar="COL", help="default: a hash of the text")
    new.add_argument(
        "--group", metavar="COL", help="what has to stay on one side of the split, as a customer"
    )
    new.add_argument(
        "--ordinal", metavar="LABEL,LABEL,...", help="the labels are a scale: all, low to high"
    )
    alike = new.add_mutually_exclusive_group()
    alike.add_argument(
        "--merge-labels",
        action="store_true",
        help="labels that look the same (Good and good, a letter of another script) are one, which "
        "has the spelling of the most rows; without this or the next they are refused",
    )
    alike.add_argument(
        "--keep-labels", action="store_true", help="labels that look the same are different classes"
    )
    new.add_argument("--out", type=Path, metavar="DIR", help="default: NAME")
    new.add_argument(
        "--model", metavar="BASE", help="to train, a folder or a Hub name; default: the tiny base"
    )
    new.add_argument("--subset", metavar="NAME", help="of the Hub's dataset, if it has several")
    new.add_argument("--split", default="train", help="of the Hub's dataset; default: train")


def run_task(args: argparse.Namespace) -> int:
    """Make a task of your own out of a table (`task new`).

    Reads a table with a text and a label column, prints its labels, lengths and
    duplicates, and writes a folder with the task's task.yml, its Axolotl
    config, its lm_eval task files and a README with the commands to type.

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
    with console.status("the names of lm-eval's tasks, the tokenizer"):
        check_is_free(name)
        tokenizer = local_tokenizer(base)
    twins: Twins = "merge" if args.merge_labels else "keep" if args.keep_labels else "refuse"
    with progress() as advance:
        length = tokenizer.length if tokenizer else None
        seen = summarise(data, columns, length, lambda: advance("read", 1), twins)
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
        )
    written = write_task(NewTask(task, dest, base, seen.counts.kept, seen.counts.explained))
    _show(seen, task)
    _show_too_long(seen, task, tokenizer, base)
    say(order.why)
    for label, other in seen.counts.merged.items():
        say(f"Merged, as they look the same: {difference(label, other)}; it stands for {other!r}.")
    if task.label_end:
        say(
            f"One label is the beginning of another, so {task.label_end!r} is written after every "
            "label (label_end)."
        )
    say("")
    say(f"{len(written)} files: {dest}")
    say(f"Next: read {dest / 'task.yml'}, its prompt above all, and type what {dest / 'README.md'}")
    say(f"      says; first regreason build {dest / 'task.yml'} --out runs/{name}/data")
    return 0


@contextmanager
def _said_in_one_sentence() -> Iterator[None]:
    """What a task's own checks refuse, as a user's mistake."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(first["msg"].removeprefix("Value error, ")) from None
    except ValueError as error:
        raise UserError(str(error)) from None


def _tiny_base() -> str:
    """The shipped model, as a config names it from where one stands if it can."""
    here = Path(FOLDER) / "cpu" / "tiny-base"
    return here.as_posix() if here.is_dir() else (shipped() / "cpu" / "tiny-base").as_posix()


def _data(args: argparse.Namespace) -> Data:
    """A file, or what can only be a dataset's id."""
    from regreason_plugin.core.task_file import Data
    from regreason_plugin.data.row_readers import TABLES

    path = Path(args.data)
    hub_like = args.data.count("/") <= 1 and not args.data.startswith((".", "/", "~"))
    if os.path.lexists(path) or args.data.lower().endswith(TABLES) or not hub_like:
        return Data(path=path)
    return Data(hub=args.data, config=args.subset, split=args.split)


def _columns(args: argparse.Namespace) -> Columns:
    from regreason_plugin.core.task_file import Columns

    return Columns(**{name: getattr(args, name) for name in Columns.model_fields})


def _show(seen: TableSummary, task: Task) -> None:
    counts = seen.counts
    say(f"{task.data}: {counts.rows} rows, {len(task.labels)} labels, {counts.groups} groups")
    console.print(_labels_table(seen, task.labels))
    console.print(_lengths_table(seen))
    for what, number in (
        ("dropped, as the same text and label stand earlier", counts.duplicates),
        ("dropped, as they have no text", counts.blank),
        ("dropped, as they have no label", counts.unlabelled),
        ("of one or two words", seen.near_empty),
    ):
        say(f"  {what}: {number}")
    if task.columns.explanation:
        say(f"  without an explanation: {counts.kept - counts.explained}")


def _show_too_long(seen: TableSummary, task: Task, tokenizer: Tokenizer | None, base: str) -> None:
    if tokenizer is None:
        say(f"  lengths in tokens are not measured: {base} is not on this machine")
        return
    limit = min(_SEQUENCE_LEN, tokenizer.window or _SEQUENCE_LEN)
    number = seen.too_long(task.prompt, task.labels, tokenizer.length, limit)
    say(f"  of more than {limit} tokens with prompt, label and explanation: {number}")
    if number:
        say("    these stop the training; raise sequence_len if the model reads more, or cut them")
        say(f"    with regreason build --tokenizer {base} --max-prompt-tokens N")


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
        # As Text, or a label in brackets would be markup.
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
