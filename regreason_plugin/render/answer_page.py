"""Raters' answers beside their conversations, in the terminal and as a page.

All of it is text from outside: the terminal gets no control character, and the page escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.table import Table
from rich.text import Text

from regreason_plugin.annotate.answer_examples import AnswerExample, StateExamples
from regreason_plugin.core.printable import one_line, printable
from regreason_plugin.core.whole_files import atomic_writer

# Characters of a message and of an answer in the terminal; the page has all.
_LONGEST_MESSAGE, _LONGEST_ANSWER = 300, 600
# Messages at the end of a conversation in the terminal.
_MESSAGES = 2


def print_answers(console: Console, shown: Sequence[StateExamples]) -> None:
    """Print one table for each rater and state."""
    for one in shown:
        table = Table(
            title=Text(_title(one)), title_justify="left", show_lines=True, width=console.width
        )
        table.add_column("end of the conversation", ratio=1)
        table.add_column("answer as read", ratio=1)
        for example in one.examples:
            table.add_row(Text(_end(example)), Text(_answer(example)))
        console.print(table)


def write_answer_page(shown: Sequence[StateExamples], path: Path) -> None:
    """Write a self-contained HTML page, whole or not at all."""
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["lines"] = lambda text: "\n".join(map(printable, text.splitlines()))
    page = environment.get_template("answers.html.j2").render(shown=shown, title=_title)
    with atomic_writer(path) as stream:
        stream.write(page.encode("utf-8", "replace"))


def _title(one: StateExamples) -> str:
    some = f", {len(one.examples)} of them" if len(one.examples) < one.number else ""
    return f"{one.rater}: {one.number:,} {one.state}{some}"


def _end(example: AnswerExample) -> str:
    turns = example.conversation.conversation
    lines = [f"{example.key.axis}, {example.key.prompt}, {one_line(example.conversation.id, 80)}"]
    if len(turns) > _MESSAGES:
        lines.append(f"({len(turns) - _MESSAGES} earlier messages)")
    lines += [
        f"{turn.role}: {one_line(turn.content, _LONGEST_MESSAGE)}" for turn in turns[-_MESSAGES:]
    ]
    return "\n".join(lines)


def _answer(example: AnswerExample) -> str:
    outcome = example.outcome
    lines = []
    if outcome.score is not None:
        lines.append(f"score: {outcome.score}")
    if outcome.explanation is not None:
        lines.append(one_line(outcome.explanation, _LONGEST_ANSWER))
    if outcome.answer:
        mended = "mended from: " if outcome.explanation is not None else ""
        lines.append(mended + one_line(outcome.answer, _LONGEST_ANSWER))
    return "\n".join(lines)
