"""The operating characteristics as tables: each count with the bound that it has to satisfy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from helpers.characteristic_cells import CELLS, Cell
from helpers.known_truth import GROUPS, Design
from helpers.simulated_pages import METRICS, Share

LEAST, MOST, FEW = 0.93, 0.97, 20
MOST_DASHES, MOST_FALSE = 0.05, 0.06
MOST_TAIL, FOUND = 2.0, (0.75, 0.85)
# A share violates its bound if it exceeds it by more than this many Monte-Carlo errors.
_ERRORS = 2.0
Rows = list[tuple[Cell, dict[str, Any]]]

TITLES = {"acc": "accuracy", "macro_f1": "macro-F1", "nll": "NLL", "miscalibration": "miscal."}
NAMES = {
    "groups": "groups",
    "settings": "settings",
    "seeds": "seeds",
    "arms": "arms",
    "accuracy": "accuracy",
    "discordance": "discordance",
    "spread": "seed spread",
    "alike": "alike",
    "effects": "true",
}


def tables(results: dict[str, Any]) -> dict[str, str]:
    """All tables with results, by title."""
    by_title: dict[str, Rows] = {}
    for cell in CELLS:
        if cell.name in results:
            title = cell.name.partition(":")[0]
            by_title.setdefault(title, []).append((cell, results[cell.name]["counts"]))
    return {title: _TABLES[title](rows) for title, rows in by_title.items()}


def outside(results: dict[str, Any]) -> list[str]:
    """The cells that violate a bound, one line each."""
    lines = []
    for title, text in tables(results).items():
        lines += [f"{title} {line}" for line in text.splitlines() if "**" in line]
    return lines


def share(counts: dict[str, Any], name: str) -> Share:
    """The counts under a name, as a share."""
    return Share(*counts.get(name, ()))


def within(one: Share, least: float = 0.0, most: float = 1.0) -> bool:
    """Whether a share is between two bounds, up to Monte-Carlo error."""
    room = _ERRORS * one.error
    return bool(one.value + room >= least and one.value - room <= most)


def shown(one: Share, least: float = 0.0, most: float = 1.0) -> str:
    """A share in percent, bold if it violates a bound."""
    if not one.pages:
        return "-"
    text = f"{100 * one.value:.1f}"
    return text if within(one, least, most) else f"**{text}**"


def expected_count(design: Design, alone: bool = False) -> float:
    """The smallest of the counts on which an interval is based.

    Args:
        design: The simulated design.
        alone: Whether the interval is of an arm's own accuracy, not of a difference.

    Returns:
        The minimum of: the expected disagreements over all seeds (with ``alone``, the rarer of
        correct and wrong answers), converted to independent documents; the effective number of
        groups; and, from three seeds on, the number of models.
    """
    sizes = np.array(GROUPS[design.groups])
    kish = float((sizes**2).sum() / sizes.sum())
    documents = sizes.sum() * design.settings / (1 + (kish - 1) * design.alike)
    rare = min(design.accuracy, 1 - design.accuracy) if alone else design.discordance
    counts = [documents * rare * (1 if alone else design.seeds), sizes.sum() / kish]
    if design.seeds >= 3:
        counts.append(design.seeds * design.arms)
    return float(min(counts))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is text."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _levels(design: Design, names: Iterable[str]) -> list[str]:
    def text(name: str) -> str:
        value = getattr(design, name)
        if name == "effects":
            return f"{max(value, default=0.0):g}"
        if name in ("discordance", "spread"):
            return f"{100 * value:g} %"
        return f"{value:g}" if isinstance(value, float) else str(value)

    return [text(name) for name in names]


def _coverage(rows: Rows) -> str:
    names = [name for name in NAMES if len({getattr(c.design, name) for c, _ in rows}) > 1]
    kinds = ["setting", "pooled"] if any(c.design.settings > 1 for c, _ in rows) else ["pooled"]
    lines = []
    for cell, counts in rows:
        design = cell.design
        count, alone = (expected_count(design, side) for side in (False, True))
        line = [*_levels(design, names), f"{count:.0f}"]
        dashes = Share()
        for kind in kinds:
            for metric in METRICS:
                one = share(counts, f"cover {kind} {metric}")
                line.append(shown(one, LEAST, MOST if count >= FEW else 1.0))
                gone = share(counts, f"dash {kind} {metric}")
                dashes = max(dashes, gone, key=lambda dash: dash.value if dash.pages else -1.0)
            one = share(counts, f"cover {kind} acc alone")
            line.append(shown(one, LEAST, MOST if min(count, alone) >= FEW else 1.0))
        bar = MOST_DASHES if design.seeds >= 3 and count >= 30 else 1.0
        error = _error(share(counts, "cover pooled acc"))
        lines.append([*line, shown(dashes, 0.0, bar), error])
    prefix = ["", "pooled "] if len(kinds) > 1 else [""]
    head = [NAMES[name] for name in names] + ["count"]
    for of_kind in prefix:
        head += [of_kind + title for title in (*TITLES.values(), "alone")]
    return markdown([*head, "dashes", "error"], lines)


def _pivot(
    rows: Rows,
    head: Sequence[str],
    place: Callable[[Cell], tuple[tuple[str, ...], str]],
    text: Callable[[Cell, dict[str, Any]], tuple[str, float]],
) -> str:
    """A table whose columns are levels of a factor.

    Args:
        rows: Cells with their counts.
        head: Header of the first columns.
        place: Returns a cell's first columns and the header of its column.
        text: Returns a cell's text and its Monte-Carlo error; a row shows its largest error.
    """
    columns: list[str] = []
    by_row: dict[tuple[str, ...], dict[str, tuple[str, float]]] = {}
    for cell, counts in rows:
        row, column = place(cell)
        columns += [column] * (column not in columns)
        by_row.setdefault(row, {})[column] = text(cell, counts)
    lines = []
    for row, texts in by_row.items():
        error = max(error for _, error in texts.values())
        shown_texts = [texts[column][0] if column in texts else "-" for column in columns]
        lines.append([*row, *shown_texts, f"±{error:.1f}"])
    return markdown([*head, *columns, "error"], lines)


def _percent(one: Share, least: float = 0.0, most: float = 1.0) -> tuple[str, float]:
    return shown(one, least, most), 100 * one.error if one.pages else 0.0


def _claims(rows: Rows) -> str:
    def place(cell: Cell) -> tuple[tuple[str, ...], str]:
        settings, seeds, spread = _levels(cell.design, ("settings", "seeds", "spread"))
        return (seeds,), f"settings {settings}, spread {spread}"

    def text(cell: Cell, counts: dict[str, Any]) -> tuple[str, float]:
        return _percent(share(counts, "false claim"), 0.0, MOST_FALSE)

    return _pivot(rows, ["seeds"], place, text)


def _equivalence(rows: Rows) -> str:
    names = ("groups", "seeds", "discordance", "spread")

    def place(cell: Cell) -> tuple[tuple[str, ...], str]:
        return tuple(_levels(cell.design, names)), f"true {max(cell.design.effects):g}"

    def text(cell: Cell, counts: dict[str, Any]) -> tuple[str, float]:
        bar = MOST_FALSE if max(cell.design.effects) else 1.0
        return _percent(share(counts, "primary same"), 0.0, bar)

    return _pivot(rows, [NAMES[name] for name in names], place, text)


def _power(rows: Rows) -> str:
    names = ("groups", "seeds", "spread")

    def place(cell: Cell) -> tuple[tuple[str, ...], str]:
        return tuple(_levels(cell.design, names)), f"true {max(cell.design.effects):g}"

    def text(cell: Cell, counts: dict[str, Any]) -> tuple[str, float]:
        return _percent(share(counts, "primary higher"))

    return _pivot(rows, [NAMES[name] for name in names], place, text)


def _calibration(rows: Rows) -> str:
    def place(cell: Cell) -> tuple[tuple[str, ...], str]:
        against = "dull" if cell.design.sharpness[1] == 0 else "too sure"
        count = f"{expected_count(cell.design):.0f}"
        return (*_levels(cell.design, ("groups", "seeds")), count), against

    def text(cell: Cell, counts: dict[str, Any]) -> tuple[str, float]:
        most = MOST if expected_count(cell.design) >= FEW else 1.0
        return _percent(share(counts, "cover pooled miscalibration"), LEAST, most)

    return _pivot(rows, ["groups", "seeds", "count"], place, text)


def _unequal(rows: Rows) -> str:
    lines = []
    for cell, counts in rows:
        of_arm, others = (share(counts, f"cover {k} acc") for k in ("pooled wide", "pooled"))
        line = [*_levels(cell.design, ("groups", "seeds")), shown(of_arm, LEAST)]
        lines.append([*line, shown(others, LEAST), _error(of_arm)])
    return markdown(["groups", "seeds", "the one arm", "the others", "error"], lines)


def _tails(rows: Rows) -> str:
    lines = []
    for cell, counts in rows:
        rate, error = counts["rate"], counts["error"]
        text = f"{rate:.2f}" if rate - _ERRORS * error <= MOST_TAIL else f"**{rate:.2f}**"
        lines.append([_row_name(cell), f"{counts['draws']:,}", text, f"±{error:.2f}"])
    return markdown(["design", "draws", "rate / nominal", "error"], lines)


def _detectable(rows: Rows) -> str:
    lines = []
    for cell, counts in rows:
        one, inside = share(counts, "found"), share(counts, "range")
        lines.append([_row_name(cell), shown(one, *FOUND), shown(inside), _error(one)])
    return markdown(["design", "found", "range holds it", "error"], lines)


def _gate(rows: Rows) -> str:
    lines = []
    for cell, counts in rows:
        # Unplanned looks have no bound: the table shows why they are wrong.
        bar = 1.0 if "each at" in cell.name else MOST_FALSE
        rates = []
        for one in (counts["pass"], counts["fail"]):
            text = f"{100 * one['rate']:.1f}"
            rates.append(text if one["rate"] - _ERRORS * one["error"] <= bar else f"**{text}**")
        worse = max(counts["pass"], counts["fail"], key=lambda one: one["rate"])
        lines.append([_row_name(cell), *rates, f"±{100 * worse['error']:.1f}", worse["design"]])
    return markdown(["", "false pass", "false fail", "error", "worst design"], lines)


def _row_name(cell: Cell) -> str:
    return cell.name.partition(": ")[2]


def _error(one: Share) -> str:
    return f"±{100 * one.error:.1f}" if one.pages else "-"


_TABLES: dict[str, Callable[[Rows], str]] = {
    "coverage": _coverage,
    "coverage of eighteen settings": _coverage,
    "no effect": _claims,
    "equivalence": _equivalence,
    "power": _power,
    "calibration": _calibration,
    "unequal seeds": _unequal,
    "tail": _tails,
    "detectable": _detectable,
    "gate": _gate,
    "looks": _gate,
}
