"""The gate's decision for a terminal, as a GitHub step summary, as JUnit XML and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
from rich.console import Console
from rich.text import Text

from regreason_plugin.comparison.gate import Decision, Requirement, Row, Verdict, together
from regreason_plugin.comparison.gate_parts import turned
from regreason_plugin.core.markdown import block, render
from regreason_plugin.core.numbers import NONE, number, signed
from regreason_plugin.core.printable import printable
from regreason_plugin.core.whole_files import append, atomic_writer
from regreason_plugin.core.whole_files import together as all_or_none
from regreason_plugin.render.tables import Cells
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
    """The verdict in one line, with the requirement that decides it."""
    row, requirement = decision.deciding
    text = f"{_WORDS[decision.verdict][0]}: {_finding(decision, row, requirement)}"
    verdicts: list[str] = [one.verdict for row in decision.gated for one in row.requirements]
    if len(verdicts) == 1:
        return text
    counts = {"shown": "pass", "missed": "fail", "undecided": "undecided"}
    said = ", ".join(f"{verdicts.count(v)} {word}" for word, v in counts.items() if v in verdicts)
    return f"{text} ({len(verdicts)} requirements: {said})"


def verdict_of(decisions: Sequence[Decision]) -> Verdict:
    """The verdict of all rules together."""
    return together([decision.verdict for decision in decisions])


def summary_of(decisions: Sequence[Decision]) -> str:
    """The verdict of all rules in one line."""
    if len(decisions) == 1:
        return headline(decisions[0])
    verdicts = [decision.verdict for decision in decisions]
    said = {"pass": "shown", "fail": "missed", "undecided": "undecided"}
    counts = [f"{verdicts.count(v)} {word}" for v, word in said.items() if v in verdicts]
    return f"{_WORDS[verdict_of(decisions)][0]}: {len(decisions)} rules: {', '.join(counts)}"


def print_decisions(decisions: Sequence[Decision]) -> None:
    """Print the verdict, the table of each rule (never cut) and the next step."""
    console = Console()
    shown = [] if len(decisions) == 1 else [(summary_of(decisions), verdict_of(decisions))]
    for decision in decisions:
        shown.append((headline(decision), decision.verdict))
    for line, verdict in shown:
        console.print(Text(line, style=_WORDS[verdict][1]), soft_wrap=True, highlight=False)
    for decision in decisions:
        print_table(console, _cells(decision), _title(decision))
    for line in [*advice(decisions), *commands(decisions)]:
        console.print(Text(line), soft_wrap=True)


def advice(decisions: Sequence[Decision]) -> list[str]:
    """Notes on the numbers, then the next step, one sentence each."""
    return [*_notes(decisions[0]), *_next(decisions)]


def _notes(decision: Decision) -> list[str]:
    """Notes on the planned look, and on effects of how the models were scored."""
    misfits = [*decision.baseline.misfit_notes, *decision.candidate.misfit_notes]
    notes = [*misfits, *(printable(note.replace("`", "")) for note in decision.notes)]
    if look := decision.rule.look:
        notes.insert(
            0,
            f"Look {look.number} of {look.planned} planned, at {look.number}/{look.planned} of all "
            f"effective groups: the error probability of a bound is {look.alpha:.2g} at this look "
            f"alone; {look.spent:.2g} of alpha {decision.rule.alpha:g} is spent so far.",
        )
    return notes


def _next(decisions: Sequence[Decision]) -> list[str]:
    look, verdict = decisions[0].rule.look, verdict_of(decisions)
    if verdict == "pass":
        return [
            "Keep this baseline: with a new one after every pass, small drops add up unnoticed."
        ]
    if verdict == "fail":
        return [f"Next: this command shows where, by {_noun(decisions[0])} and by document:"]
    if look and look.number < look.planned:
        return [
            "Undecided is not a pass. "
            f"The next look is planned at {look.number + 1}/{look.planned} of all effective groups."
        ]
    if look:
        return ["Undecided is not a pass, and this was the last look planned."]
    return [
        "Undecided is not a pass. Do not add documents and test again until it passes: that lets "
        "worse models through. To test more than once, plan the looks with --looks beforehand."
    ]


def commands(decisions: Sequence[Decision]) -> list[str]:
    """The command that shows where the candidate is worse; none unless the gate fails."""
    if verdict_of(decisions) != "fail":
        return []
    runs = {"baseline": decisions[0].baseline, "candidate": decisions[0].candidate}
    named = " ".join(shlex.quote(f"{name}={run.folder}") for name, run in runs.items())
    tasks = dict.fromkeys(pattern for one in decisions for pattern in one.rule.tasks)
    chosen = f" --tasks {shlex.quote(','.join(tasks))}" if tasks else ""
    return [printable(f"regreason compare {named} --baseline baseline{chosen} --out page")]


def to_markdown(decisions: Sequence[Decision]) -> str:
    """The decision as Markdown, for a GitHub step summary."""
    word = _WORDS[verdict_of(decisions)][0]
    shown = commands(decisions)
    return render(
        "render/gate.md.j2",
        word=word,
        headline=_capital(summary_of(decisions).removeprefix(f"{word}: ")),
        rules=[
            (
                headline(decision) if len(decisions) > 1 else "",
                _title(decision),
                cells := _cells(decision),
                "l" * cells.words + "r",
            )
            for decision in decisions
        ],
        advice=advice(decisions),
        commands=block("\n".join(shown), "sh") if shown else None,
    )


def write(
    decisions: Sequence[Decision], *, junit: Path | None, summary: Path | None, json: Path | None
) -> None:
    """Write the files for which a path is given, all or none.

    Args:
        decisions: The decision on each rule.
        junit: File for the JUnit XML; None for none.
        summary: File that the Markdown is appended to, since other CI steps may write to it, too.
        json: File for all numbers; None for none.

    Raises:
        UserError: A file cannot be written.
    """
    with all_or_none():
        for path, content in ((junit, to_junit), (json, to_json)):
            if path:
                with atomic_writer(path) as stream:
                    stream.write(content(decisions))
        if summary:
            append(summary, to_markdown(decisions).encode("utf-8"))


def to_json(decisions: Sequence[Decision]) -> bytes:
    """The decision with every number; if lower is better, changes and limits are negated."""
    runs = {"baseline": decisions[0].baseline, "candidate": decisions[0].candidate}

    def row(one: Row) -> dict[str, Any]:
        return {**asdict(one), "name": " ".join(filter(None, one.name)), "verdict": one.verdict}

    def rule(decision: Decision) -> dict[str, Any]:
        return {
            "verdict": decision.verdict,
            "says": headline(decision),
            **asdict(decision.rule),
            "requirements": decision.requirements,
            "overall": row(decision.overall),
            "parts": [row(one) for one in decision.parts],
        }

    several = {
        "verdict": verdict_of(decisions),
        "says": summary_of(decisions),
        "rules": [rule(decision) for decision in decisions],
    }
    content = {
        "format": 1,
        **(rule(decisions[0]) if len(decisions) == 1 else several),
        **{name: str(run.folder) for name, run in runs.items()},
        "notes": advice(decisions),
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_junit(decisions: Sequence[Decision]) -> bytes:
    """The decision as JUnit XML: for each rule, a test case for its verdict and one for each part.

    A part's case fails only if the rule decides by parts (``per``). The type of a failure is
    ``worse`` or ``undecided``.
    """
    counts = [_counts(decision) for decision in decisions]
    total = [sum(each) for each in zip(*counts, strict=True)]
    suites = ElementTree.Element("testsuites", _attributes("regreason gate", *total))
    for decision, of_rule in zip(decisions, counts, strict=True):
        name = printable(" ".join(["regreason gate", *decision.rule.tasks]))
        suite = ElementTree.SubElement(suites, "testsuite", _attributes(name, *of_rule))
        _add_cases(suite, decision)
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _counts(decision: Decision) -> tuple[int, int]:
    """The number of test cases of a rule, and of those that fail."""
    parts = decision.parts
    failing = [row.verdict != "pass" for row in parts] if decision.rule.per else []
    return len(parts) + 1, (decision.verdict != "pass") + sum(failing)


def _attributes(name: str, tests: int, failures: int) -> dict[str, str]:
    counts = {"tests": str(tests), "failures": str(failures)}
    return {"name": name, **counts, "errors": "0", "skipped": "0", "time": "0"}


def _add_cases(suite: ElementTree.Element, decision: Decision) -> None:
    verdict: Verdict = decision.verdict
    one = [decision]
    details = [*advice(one), *commands(one)] if verdict != "pass" else _notes(decision)
    _case(suite, "verdict", "regreason.gate", verdict, headline(decision), details)
    for row in decision.parts:
        verdict = row.verdict if decision.rule.per else "pass"
        finding, *others = [_finding(decision, row, one) for one in row.requirements]
        where = f"regreason.gate.{decision.rule.per or _noun(decision) + 's'}"
        _case(suite, row.key, where, verdict, finding, [*others, _in_a_line(decision, row)])


def _case(
    suite: ElementTree.Element,
    name: str,
    classname: str,
    verdict: Verdict,
    finding: str,
    details: list[str],
) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": printable(classname), "name": printable(name), "time": "0"}
    )
    if verdict == "pass":
        ElementTree.SubElement(case, "system-out").text = "\n".join([finding, *details])
        return
    kind = "worse" if verdict == "fail" else "undecided"
    failure = ElementTree.SubElement(case, "failure", {"message": finding, "type": kind})
    failure.text = "\n".join(details)


def _in_a_line(decision: Decision, row: Row) -> str:
    header, cells = _header(decision), _row_cells(decision, row)
    words = _words(decision)
    named = zip(header[words:], cells[words:], strict=True)
    return ", ".join(f"{name} {cell}" for name, cell in named)


def _finding(decision: Decision, row: Row, one: Requirement) -> str:
    """A requirement in words: value, bounds, and whether it is above or below its limit."""
    metric = decision.metric.title
    place = _place(decision, row)
    if row.documents == 0:
        return f"no document is in {place}"
    if one.low is None or one.high is None:
        return f"{place or 'the test set'} {_too_few(row)}"
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
    direction = " (negated: below zero is worse)" if _is_turned(decision) else ""
    seen = f"{metric}{inside}{direction} changed by {_signed(one.value)}"
    position_of_change = f"{_CHANGE[one.verdict]} {-decision.rule.max_drop:.4f}"
    return f"{seen} {_sureness(decision, row, one)}, {position_of_change}"


def _too_few(row: Row) -> str:
    count = f"{row.documents:,} document{'s' * (row.documents > 1)}"
    return (
        f"has {count} in {row.groups:,} group{'s' * (row.groups > 1)}; bounds need differences "
        "between groups"
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
    """The bounds as text; those of a level are in the metric's original direction."""
    if one is not row.level:
        return _signed(one.low), _signed(one.high)
    if _is_turned(decision):
        low, high = (None if x is None else -x for x in (one.high, one.low))
    else:
        low, high = one.low, one.high
    return number(low, 4), number(high, 4)


def _place(decision: Decision, row: Row) -> str:
    """The name of a part in a sentence; empty for all documents."""
    if row is decision.overall:
        return printable(", ".join(decision.rule.tasks))
    # (The name of a task of lm_eval is enough without its group.)
    parts = row.name[1:] if decision.baseline.logged else row.name
    name = printable(", ".join(filter(None, parts)))
    per = decision.rule.per
    return name if per in (None, "setting", "task") else f"{per} {name}"


def _title(decision: Decision) -> str:
    rule, metric = decision.rule, decision.metric.title
    # (The name of a metric of lm_eval is written as lm_eval writes it.)
    metric = printable(metric) if decision.baseline.logged else _capital(metric)
    of = f" of {printable(', '.join(rule.tasks))}" if rule.tasks else ""
    if rule.per:
        title = f"{metric}{of} by {rule.per}: every row must pass"
    else:
        by = f"{metric}{of} by {_noun(decision)}"
        title = f"{by}, for information: all documents together decide"
    return title + ("; changes are negated, so below zero is worse" * _is_turned(decision))


def _words(decision: Decision) -> int:
    """The number of columns that name a part."""
    return 2 if decision.rule.per in (None, "setting", "task") else 1


def _noun(decision: Decision) -> str:
    """The word for a setting: ``task`` with any tasks of lm_eval."""
    return "task" if decision.baseline.logged else "setting"


def _header(decision: Decision) -> list[str]:
    rule = decision.rule
    lower, upper = _levels(decision)
    names = ["group", "task"] if decision.baseline.logged else ["dataset", "axis"]
    header = names if _words(decision) == 2 else [printable(rule.per or "")]
    header = [*header, "documents", "effective groups", "baseline", "candidate", "change"]
    header += [f"lower {lower}", f"upper {upper}"]
    if rule.limit is not None:
        ends = [lower, upper] if not _is_turned(decision) else [upper, lower]
        header += [f"candidate, lower {ends[0]}", f"candidate, upper {ends[1]}"]
    return header + ["verdict"] * (rule.per is not None)


def _cells(decision: Decision) -> Cells:
    """A row for each part, then one for all documents."""
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
    """The number of effective groups, with one decimal below 100."""
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
    """Levels of lower and of upper bounds; the latter is corrected for all requirements."""
    alpha = decision.rule.alpha_now
    lower, upper = (f"{100 * (1 - one):.5g} %" for one in (alpha, alpha / decision.requirements))
    return lower, upper


def _is_turned(decision: Decision) -> bool:
    return turned(decision.metric) < 0
