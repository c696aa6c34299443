"""What the gate says: for a terminal, as a step summary of GitHub, and for JUnit readers."""

from __future__ import annotations

import shlex
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.text import Text

from regreason_plugin.compare.gate import Decision, Row
from regreason_plugin.core.markdown import block, render
from regreason_plugin.core.numbers import number, signed
from regreason_plugin.core.whole_files import append, atomic_writer, together
from regreason_plugin.metrics.metric_names import METRICS
from regreason_plugin.render.tables import Cells, printable
from regreason_plugin.render.terminal import print_table

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
    console = Console()
    console.print(
        Text(headline(decision), style=_WORDS[decision.verdict][2]), soft_wrap=True, highlight=False
    )
    print_table(console, _cells(decision), _title(decision))
    for line in [*advice(decision), *commands(decision)]:
        console.print(Text(line), soft_wrap=True)


def advice(decision: Decision) -> list[str]:
    """What the numbers hide, and what to do next, in sentences."""
    return [*_hidden(decision), *_next(decision)]


def _hidden(decision: Decision) -> list[str]:
    misfits = [*decision.baseline.misfit_notes, *decision.candidate.misfit_notes]
    return [*misfits, *(printable(note.replace("`", "")) for note in decision.notes)]


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
    return [printable(f"regreason compare {named} --baseline baseline --out page")]


def to_markdown(decision: Decision) -> str:
    """The decision for a step summary."""
    word = _WORDS[decision.verdict][0]
    shown = commands(decision)
    return render(
        "render/gate.md.j2",
        word=word,
        headline=_capital(headline(decision).removeprefix(f"{word}: ")),
        title=_title(decision),
        cells=_cells(decision),
        advice=advice(decision),
        commands=block("\n".join(shown), "sh") if shown else None,
    )


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
    cells = _cells(decision)
    for row, line in zip(decision.settings, cells.body, strict=True):
        case = _case(suite, f"{row.dataset} {row.axis}", "regreason.gate.settings")
        named = zip(cells.header[2:], line[2:], strict=True)
        shown = ", ".join(f"{name} {cell}" for name, cell in named)
        ElementTree.SubElement(case, "system-out").text = shown
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _case(suite: ElementTree.Element, name: str, place: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", {"classname": place, "name": name, "time": "0"}
    )


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


def _cells(decision: Decision) -> Cells:
    """A row a setting, all documents last."""
    level = _level(decision)
    header = ["dataset", "axis", "documents", "groups", "baseline", "candidate", "change"]
    header += [f"lower {level}", f"upper {level}"]
    body = [_row_cells(row) for row in decision.settings]
    return Cells(header, body, [_row_cells(decision.overall)], words=2, fixed=len(header))


def _row_cells(row: Row) -> list[str]:
    return [
        printable(row.title),
        printable(row.axis_title),
        f"{row.documents:,}",
        f"{row.groups:,}",
        number(row.baseline, 4),
        number(row.candidate, 4),
        *map(_signed, (row.change, row.low, row.high)),
    ]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _signed(value: float | None) -> str:
    return signed(value, 4, zero="+")


def _level(decision: Decision) -> str:
    return f"{100 * (1 - decision.alpha):g} %"


def _is_turned(decision: Decision) -> bool:
    return METRICS[decision.metric].better == "lower"
