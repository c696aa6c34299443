"""What the gate says: for a terminal, as a step summary of GitHub, for JUnit readers, as JSON."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
from rich.console import Console
from rich.text import Text

from regreason_plugin.comparison.gate import Decision, Requirement, Row, Verdict
from regreason_plugin.comparison.gate_parts import turned
from regreason_plugin.core.markdown import block, render
from regreason_plugin.core.numbers import NONE, number, signed
from regreason_plugin.core.whole_files import append, atomic_writer, together
from regreason_plugin.metrics.metric_names import METRICS
from regreason_plugin.render.tables import Cells, printable
from regreason_plugin.render.terminal import print_table

_WORDS: dict[Verdict, tuple[str, str]] = {
    "pass": ("PASS", "bold green"),
    "fail": ("FAIL", "bold red"),
    "undecided": ("UNDECIDED", "bold yellow"),
}
_CHANGE: dict[Verdict, str] = {
    "pass": "not below",
    "fail": "below",
    "undecided": "which may or may not be below",
}


def headline(decision: Decision) -> str:
    """The verdict in one line, with what decides it."""
    row, requirement = decision.deciding
    text = f"{_WORDS[decision.verdict][0]}: {_finding(decision, row, requirement)}"
    if decision.requirements == 1:
        return text
    verdicts: list[str] = [one.verdict for row in decision.gated for one in row.requirements]
    counts = {"shown": "pass", "missed": "fail", "undecided": "undecided"}
    said = ", ".join(f"{verdicts.count(v)} {word}" for word, v in counts.items() if v in verdicts)
    return f"{text} ({len(verdicts)} requirements: {said})"


def print_decision(decision: Decision) -> None:
    """Print verdict, table and what to do next; the table as wide as it needs to be."""
    console = Console()
    style = _WORDS[decision.verdict][1]
    console.print(Text(headline(decision), style=style), soft_wrap=True, highlight=False)
    print_table(console, _cells(decision), _title(decision))
    for line in [*advice(decision), *commands(decision)]:
        console.print(Text(line), soft_wrap=True)


def advice(decision: Decision) -> list[str]:
    """What the numbers hide, and what to do next, in sentences."""
    return [*_beside(decision), *_next(decision)]


def _beside(decision: Decision) -> list[str]:
    """The look, and what the way the models were scored does to the numbers."""
    misfits = [*decision.baseline.misfit_notes, *decision.candidate.misfit_notes]
    notes = [*misfits, *(printable(note.replace("`", "")) for note in decision.notes)]
    if look := decision.rule.look:
        notes.insert(
            0,
            f"Look {look.number} of {look.planned} planned, at {look.number}/{look.planned} of all "
            f"effective groups: a bound errs with a probability of {look.alpha:.2g} at this look "
            f"alone; {look.spent:.2g} of alpha {decision.rule.alpha:g} is spent so far.",
        )
    return notes


def _next(decision: Decision) -> list[str]:
    look = decision.rule.look
    if decision.verdict == "pass":
        return [
            "Keep the baseline: a new one after every pass would let small drops add up unseen."
        ]
    if decision.verdict == "fail":
        return ["Next: see where, setting by setting and document by document:"]
    if look and look.number < look.planned:
        return [
            f"Undecided is no pass. The next look is planned at {look.number + 1}/{look.planned} "
            "of all effective groups."
        ]
    if look:
        return ["Undecided is no pass, and this was the last look planned."]
    return [
        "Undecided is no pass. Do not add documents and test again until it passes: that lets "
        "worse models through. Plan several looks before the first with --looks."
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
    cells = _cells(decision)
    return render(
        "render/gate.md.j2",
        word=word,
        headline=_capital(headline(decision).removeprefix(f"{word}: ")),
        title=_title(decision),
        cells=cells,
        align="l" * cells.words + "r",
        advice=advice(decision),
        commands=block("\n".join(shown), "sh") if shown else None,
    )


def write(
    decision: Decision, *, junit: Path | None, summary: Path | None, json: Path | None
) -> None:
    """Write the pages that are asked for, all or none.

    Args:
        decision: What they say.
        junit: Where JUnit's XML goes.
        summary: Where Markdown is appended, since other steps may write there too.
        json: Where all numbers go.

    Raises:
        UserError: One cannot be written.
    """
    with together():
        for path, content in ((junit, to_junit), (json, to_json)):
            if path:
                with atomic_writer(path) as stream:
                    stream.write(content(decision))
        if summary:
            append(summary, to_markdown(decision).encode("utf-8"))


def to_json(decision: Decision) -> bytes:
    """The decision with every number; changes and limits are turned round where lower is better."""
    runs = {"baseline": decision.baseline, "candidate": decision.candidate}

    def row(one: Row) -> dict[str, Any]:
        return {**asdict(one), "name": " ".join(filter(None, one.name)), "verdict": one.verdict}

    content = {
        "format": 1,
        "verdict": decision.verdict,
        "says": headline(decision),
        **asdict(decision.rule),
        "requirements": decision.requirements,
        "overall": row(decision.overall),
        "parts": [row(one) for one in decision.parts],
        **{name: str(run.folder) for name, run in runs.items()},
        "notes": advice(decision),
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_junit(decision: Decision) -> bytes:
    """JUnit's XML: a case for the verdict, and one a part, which fails only where parts decide.

    A failure's type is ``worse`` or ``undecided``.
    """
    parts = decision.parts
    failing = [row.verdict != "pass" for row in parts] if decision.rule.per else []
    failed = decision.verdict != "pass"
    counts = {"tests": str(len(parts) + 1), "failures": str(failed + sum(failing))}
    counts |= {"errors": "0", "skipped": "0", "time": "0"}
    suites = ElementTree.Element("testsuites", {"name": "regreason gate", **counts})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "regreason gate", **counts})
    told = [*advice(decision), *commands(decision)] if failed else _beside(decision)
    verdict: Verdict = decision.verdict
    _case(suite, "verdict", "regreason.gate", verdict, headline(decision), told)
    for row in parts:
        verdict = row.verdict if decision.rule.per else "pass"
        said, *more = [_finding(decision, row, one) for one in row.requirements]
        where = f"regreason.gate.{decision.rule.per or 'settings'}"
        _case(suite, row.key, where, verdict, said, [*more, _in_a_line(decision, row)])
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _case(
    suite: ElementTree.Element, name: str, place: str, verdict: Verdict, said: str, more: list[str]
) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": printable(place), "name": printable(name), "time": "0"}
    )
    if verdict == "pass":
        ElementTree.SubElement(case, "system-out").text = "\n".join([said, *more])
        return
    kind = "worse" if verdict == "fail" else "undecided"
    failure = ElementTree.SubElement(case, "failure", {"message": said, "type": kind})
    failure.text = "\n".join(more)


def _in_a_line(decision: Decision, row: Row) -> str:
    header, cells = _header(decision), _row_cells(decision, row)
    words = _words(decision)
    named = zip(header[words:], cells[words:], strict=True)
    return ", ".join(f"{name} {cell}" for name, cell in named)


def _finding(decision: Decision, row: Row, one: Requirement) -> str:
    """What was seen of a requirement, how sure it is, and how it lies to its limit."""
    metric = METRICS[decision.rule.metric].title
    place = _place(decision, row)
    if row.documents == 0:
        return f"no document is in {place}"
    if one.low is None or one.high is None:
        return f"{place or 'the results'} {_too_few(row)}"
    inside = f" in {place}" if place else ""
    if one is row.level:
        limit = number(decision.rule.limit, 4)
        beyond, short = ("below", "above") if _is_turned(decision) else ("above", "below")
        position = {
            "pass": beyond,
            "fail": short,
            "undecided": f"which may or may not be {beyond}",
        }
        seen = f"the candidate's {metric}{inside} is {number(row.candidate, 4)}"
        return f"{seen} {_sureness(decision, row, one)}, {position[one.verdict]} {limit}"
    turned_round = " (turned round: below zero is worse)" if _is_turned(decision) else ""
    seen = f"{metric}{inside}{turned_round} changed by {_signed(one.value)}"
    position_of_change = f"{_CHANGE[one.verdict]} {-decision.rule.max_drop:.4f}"
    return f"{seen} {_sureness(decision, row, one)}, {position_of_change}"


def _too_few(row: Row) -> str:
    count = f"{row.documents:,} document{'s' * (row.documents > 1)}"
    return (
        f"has {count} in {row.groups:,} group{'s' * (row.groups > 1)}, and how sure a change is "
        "shows only between groups"
    )


def _sureness(decision: Decision, row: Row, one: Requirement) -> str:
    low, high = _ends(decision, row, one)
    lower, upper = _levels(decision)
    if lower == upper:
        bounds = f"one-sided {lower} bounds {low} to {high}"
    else:
        bounds = f"one-sided bounds {low} at {lower} and {high} at {upper}"
    return f"({bounds}, {_effective(row)} effective groups)"


def _ends(decision: Decision, row: Row, one: Requirement) -> tuple[str, str]:
    """The bounds as text; a level's are turned back to the metric's own direction."""
    if one is not row.level:
        return _signed(one.low), _signed(one.high)
    if _is_turned(decision):
        low, high = (None if x is None else -x for x in (one.high, one.low))
    else:
        low, high = one.low, one.high
    return number(low, 4), number(high, 4)


def _place(decision: Decision, row: Row) -> str:
    """A part in a sentence; empty for all documents."""
    if row is decision.overall:
        return ""
    name = printable(", ".join(filter(None, row.name)))
    per = decision.rule.per
    return name if per in (None, "setting") else f"{per} {name}"


def _title(decision: Decision) -> str:
    rule = decision.rule
    what = METRICS[rule.metric].title
    if rule.per:
        title = f"{_capital(what)} by {rule.per}: every row has to pass"
    else:
        title = f"{_capital(what)} by setting, for information: all documents together decide"
    return title + ("; change turned round, below zero is worse" * _is_turned(decision))


def _words(decision: Decision) -> int:
    """How many columns name a part."""
    return 2 if decision.rule.per in (None, "setting") else 1


def _header(decision: Decision) -> list[str]:
    rule = decision.rule
    lower, upper = _levels(decision)
    header = ["dataset", "axis"] if _words(decision) == 2 else [printable(rule.per or "")]
    header += ["documents", "effective groups", "baseline", "candidate", "change"]
    header += [f"lower {lower}", f"upper {upper}"]
    if rule.limit is not None:
        ends = [lower, upper] if not _is_turned(decision) else [upper, lower]
        header += [f"candidate, lower {ends[0]}", f"candidate, upper {ends[1]}"]
    return header + ["verdict"] * (rule.per is not None)


def _cells(decision: Decision) -> Cells:
    """A row a part, all documents last."""
    header = _header(decision)
    body = [_row_cells(decision, row) for row in decision.parts]
    footer = [_row_cells(decision, decision.overall)]
    return Cells(header, body, footer, words=_words(decision), fixed=len(header))


def _row_cells(decision: Decision, row: Row) -> list[str]:
    cells = [
        *map(printable, row.name[: _words(decision)]),
        f"{row.documents:,}",
        _effective(row),
        number(row.baseline, 4),
        number(row.candidate, 4),
        _signed(row.change.value),
        *_ends(decision, row, row.change),
    ]
    if row.level:
        cells += _ends(decision, row, row.level)
    if decision.rule.per:
        cells.append(_WORDS[row.verdict][0])
    return cells


def _effective(row: Row) -> str:
    """The number of effective groups; few are no whole number."""
    if not row.groups:
        return NONE
    return (
        number(row.effective_groups, 1)
        if row.effective_groups < 100
        else (f"{row.effective_groups:,.0f}")
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _signed(value: float | None) -> str:
    return signed(value, 4, zero="+")


def _levels(decision: Decision) -> tuple[str, str]:
    """Of the lower bounds, and of the upper ones, which are of all requirements together."""
    alpha = decision.rule.alpha_now
    lower, upper = (f"{100 * (1 - one):.5g} %" for one in (alpha, alpha / decision.requirements))
    return lower, upper


def _is_turned(decision: Decision) -> bool:
    return turned(decision.rule.metric) < 0
