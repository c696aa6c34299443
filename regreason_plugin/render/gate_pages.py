"""What the gate says: for a terminal, as a step summary of GitHub, and for JUnit readers."""

from __future__ import annotations

import shlex
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regreason_plugin.compare.gate import Decision, Row
from regreason_plugin.core.markdown import block, escape
from regreason_plugin.core.whole_files import append, atomic_writer, together
from regreason_plugin.metrics.metric_names import METRICS
from regreason_plugin.render.tables import printable

_WORDS = {
    "pass": ("PASS", "not below", "bold green"),
    "fail": ("FAIL", "below", "bold red"),
    "undecided": ("UNDECIDED", "which may or may not be below", "bold yellow"),
}


def headline(decision: Decision) -> str:
    """The verdict in one line."""
    word, position, _ = _WORDS[decision.verdict]
    return f"{word}: {_finding(decision)}, {position} {-decision.max_drop:.4f}"


def print_decision(decision: Decision) -> None:
    """Print verdict, table and what to do next; the table as wide as it needs to be."""
    header, rows = _cells(decision)
    table = Table(title=_title(decision), title_justify="left")
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    for place, cells in enumerate(rows):
        last = place == len(rows) - 1
        if last:
            table.add_section()
        # (As Text: a name with brackets is no markup.)
        table.add_row(*map(Text, cells), style="bold" if last else None)
    width = Console(width=1000).measure(table).maximum
    console = Console(width=max(Console().width, width))
    console.print(
        Text(headline(decision), style=_WORDS[decision.verdict][2]), soft_wrap=True, highlight=False
    )
    console.print(table)
    for line in [*advice(decision), *commands(decision)]:
        console.print(Text(line), soft_wrap=True)


def advice(decision: Decision) -> list[str]:
    """What the numbers hide, and what to do next, in sentences."""
    return [*_hidden(decision), *_next(decision)]


def _hidden(decision: Decision) -> list[str]:
    misfits = [*decision.baseline.misfit_notes, *decision.candidate.misfit_notes]
    return [*misfits, *(_clean(note.replace("`", "")) for note in decision.notes)]


def _next(decision: Decision) -> list[str]:
    if decision.verdict == "pass":
        return [
            "Keep the baseline: a new one after every pass would let small drops add up unseen."
        ]
    if decision.verdict == "fail":
        return ["Next: see where, setting by setting and document by document:"]
    documents = decision.overall.documents
    if decision.times is None:
        return [
            "No number of documents within reach would decide it at this change: it is too near "
            "the drop that is allowed."
        ]
    return [
        f"About {decision.times:.1f} times as many documents ({documents * decision.times:,.0f} in "
        f"place of {documents:,}) would decide it, if the change stays what it is."
    ]


def commands(decision: Decision) -> list[str]:
    """The command that shows more, where there is something to see."""
    if decision.verdict != "fail":
        return []
    runs = {"baseline": decision.baseline, "candidate": decision.candidate}
    named = " ".join(shlex.quote(f"{name}={run.folder}") for name, run in runs.items())
    return [_clean(f"regreason compare {named} --baseline baseline --out page")]


def to_markdown(decision: Decision) -> str:
    """The decision for a step summary."""
    header, rows = _cells(decision)
    word = _WORDS[decision.verdict][0]
    lines = [
        f"### Gate: {word}",
        "",
        escape(_capital(headline(decision).removeprefix(f"{word}: "))) + ".",
        "",
        escape(_title(decision)) + ":",
        "",
        "| " + " | ".join(map(escape, header)) + " |",
        "|" + "|".join(" --- " if place < 2 else " ---: " for place in range(len(header))) + "|",
        *("| " + " | ".join(map(escape, cells)) + " |" for cells in rows[:-1]),
        "| " + " | ".join(f"**{escape(cell)}**" if cell else "" for cell in rows[-1]) + " |",
        "",
        *map(escape, advice(decision)),
    ]
    if shown := commands(decision):
        lines += ["", block("\n".join(shown), "sh")]
    return "\n".join(lines) + "\n\n"


def write(decision: Decision, junit: Path | None, summary: Path | None) -> None:
    """Write the pages that are asked for, all or none.

    Args:
        decision: What they say.
        junit: Where JUnit's XML goes.
        summary: Where Markdown is appended, since other steps may write there too.

    Raises:
        UserError: One cannot be written.
    """
    with together():
        if junit:
            with atomic_writer(junit) as stream:
                stream.write(to_junit(decision))
        if summary:
            append(summary, to_markdown(decision).encode("utf-8"))


def to_junit(decision: Decision) -> bytes:
    """JUnit's XML: a case for the verdict, and one a setting that cannot fail.

    A failure's type is ``worse`` or ``undecided``.
    """
    failed = decision.verdict != "pass"
    counts = {"tests": str(len(decision.settings) + 1), "failures": str(int(failed))}
    counts |= {"errors": "0", "skipped": "0", "time": "0"}
    suites = ElementTree.Element("testsuites", {"name": "regreason gate", **counts})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "regreason gate", **counts})
    case = _case(suite, "verdict", "regreason.gate")
    if failed:
        kind = "worse" if decision.verdict == "fail" else "undecided"
        failure = ElementTree.SubElement(
            case, "failure", {"message": headline(decision), "type": kind}
        )
        failure.text = "\n".join([*advice(decision), *commands(decision)])
    else:
        shown = "\n".join([headline(decision), *_hidden(decision)])
        ElementTree.SubElement(case, "system-out").text = shown
    header, cells = _cells(decision)
    for row, line in zip(decision.settings, cells, strict=False):
        case = _case(suite, f"{row.dataset} {row.axis}", "regreason.gate.settings")
        shown = ", ".join(f"{name} {cell}" for name, cell in zip(header[2:], line[2:], strict=True))
        ElementTree.SubElement(case, "system-out").text = shown
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _case(suite: ElementTree.Element, name: str, place: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", {"classname": place, "name": name, "time": "0"}
    )


def _clean(text: str) -> str:
    """Without control characters and halves of characters.

    They move a terminal's cursor, and XML 1.0 has no way to write them.
    """
    return "".join(c if c.isprintable() or c in "\t\n" else "\ufffd" for c in text)


def _finding(decision: Decision) -> str:
    row = decision.overall
    turned = " (turned round: below zero is worse)" if _is_turned(decision) else ""
    return (
        f"{METRICS[decision.metric].title}{turned} changed by {_signed(row.change)} (one-sided "
        f"{_level(decision)} bounds {_signed(row.low)} to {_signed(row.high)})"
    )


def _title(decision: Decision) -> str:
    what = METRICS[decision.metric].title
    turned = "; change turned round, below zero is worse" if _is_turned(decision) else ""
    return f"{_capital(what)} by setting, for information: all documents together decide{turned}"


def _cells(decision: Decision) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table as text, all documents last."""
    level = _level(decision)
    header = ["dataset", "axis", "documents", "groups", "baseline", "candidate", "change"]
    header += [f"lower {level}", f"upper {level}"]
    rows = [_row_cells(row) for row in [*decision.settings, decision.overall]]
    return header, rows


def _row_cells(row: Row) -> list[str]:
    return [
        printable(row.title),
        printable(row.axis_title),
        f"{row.documents:,}",
        f"{row.groups:,}",
        f"{row.baseline:.4f}",
        f"{row.candidate:.4f}",
        *map(_signed, (row.change, row.low, row.high)),
    ]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _signed(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value + 0.0:+.4f}".replace("-0.0000", "+0.0000")


def _level(decision: Decision) -> str:
    return f"{100 * (1 - decision.alpha):g} %"


def _is_turned(decision: Decision) -> bool:
    return METRICS[decision.metric].better == "lower"
