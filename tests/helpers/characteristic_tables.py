"""The operating characteristics as tables: what was counted beside the bar that it has to keep."""

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
# A share lies outside of its bar where it does so by more than this many Monte-Carlo errors.
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
    """Every table that there are results for, by its title."""
    by_title: dict[str, Rows] = {}
    for cell in CELLS:
        if cell.name in results:
            title = cell.name.partition(":")[0]
            by_title.setdefault(title, []).append((cell, results[cell.name]["counts"]))
    return {title: _TABLES[title](rows) for title, rows in by_title.items()}


def outside(results: dict[str, Any]) -> list[str]:
    """The cells that lie outside of a bar, a line each."""
    lines = []
    for title, text in tables(results).items():
        lines += [f"{title} {line}" for line in text.splitlines() if "**" in line]
    return lines


def share(counts: dict[str, Any], name: str) -> Share:
    """What was counted under a name."""
    return Share(*counts.get(name, ()))


def within(one: Share, least: float = 0.0, most: float = 1.0) -> bool:
    """Whether a share may be between the two."""
    room = _ERRORS * one.error
    return bool(one.value + room >= least and one.value - room <= most)


def shown(one: Share, least: float = 0.0, most: float = 1.0) -> str:
    """A percentage, bold where it lies outside of the bar."""
    if not one.pages:
        return "-"
    text = f"{100 * one.value:.1f}"
    return text if within(one, least, most) else f"**{text}**"


def expected_count(design: Design, alone: bool = False) -> float:
    """The least of the counts that an interval rests on.

    Args:
        design: What is simulated.
        alone: Of an arm's own accuracy, not of a difference.

    Returns:
        Disagreements (alone: right or wrong answers, the rarer of the two) that are expected over
        all seeds, as many as say the same in groups of one; the effective groups; and from three
        seeds on the models.
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
    """A table whose first column is text."""
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


def _claims(rows: Rows) -> str:
    names = ("settings", "seeds", "spread")
    lines = []
    for cell, counts in rows:
        one = share(counts, "false claim")
        line = [*_levels(cell.design, names), shown(one, 0.0, MOST_FALSE)]
        lines.append([*line, shown(share(counts, "any claim")), _error(one)])
    return markdown([*(NAMES[n] for n in names), "a false claim", "any claim", "error"], lines)


def _equivalence(rows: Rows) -> str:
    names = ("groups", "seeds", "discordance", "spread")
    lines = []
    for cell, counts in rows:
        effect = max(cell.design.effects)
        one = share(counts, "primary same")
        line = [*_levels(cell.design, names), f"{effect:g}"]
        lines.append([*line, shown(one, 0.0, MOST_FALSE if effect else 1.0), _error(one)])
    return markdown([*(NAMES[n] for n in names), "true", "the same", "error"], lines)


def _power(rows: Rows) -> str:
    names = ("groups", "seeds", "spread")
    lines = []
    for cell, counts in rows:
        one = share(counts, "primary higher")
        line = [*_levels(cell.design, names), f"{max(cell.design.effects):g}", shown(one)]
        lines.append([*line, shown(share(counts, "primary lower"), 0.0, 0.025), _error(one)])
    return markdown([*(NAMES[n] for n in names), "true", "higher", "lower", "error"], lines)


def _calibration(rows: Rows) -> str:
    lines = []
    for cell, counts in rows:
        one = share(counts, "cover pooled miscalibration")
        against = "dull" if cell.design.sharpness[1] == 0 else "too sure"
        count = expected_count(cell.design)
        text = shown(one, LEAST, MOST if count >= FEW else 1.0)
        line = [*_levels(cell.design, ("groups", "seeds")), against, f"{count:.0f}", text]
        lines.append([*line, shown(share(counts, "dash pooled miscalibration")), _error(one)])
    head = ["groups", "seeds", "against", "count", "covered", "dashes", "error"]
    return markdown(head, lines)


def _unequal(rows: Rows) -> str:
    lines = []
    for cell, counts in rows:
        for kind, which in (("pooled wide", "the one arm"), ("pooled", "the others")):
            one = share(counts, f"cover {kind} acc")
            line = [*_levels(cell.design, ("groups", "seeds")), which, shown(one, LEAST)]
            lines.append([*line, _error(one)])
    return markdown(["groups", "seeds", "difference of", "covered", "error"], lines)


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
        lines.append([_row_name(cell), shown(one, *FOUND), shown(inside, LEAST), _error(one)])
    return markdown(["design", "found", "range holds it", "error"], lines)


def _gate(rows: Rows) -> str:
    lines = []
    for cell, counts in rows:
        # Looks without a plan are there to be warned of.
        bar = 1.0 if "each at" in cell.name else MOST_FALSE
        for name in ("pass", "fail"):
            one = counts[name]
            text = f"{100 * one['rate']:.1f}"
            text = text if one["rate"] - _ERRORS * one["error"] <= bar else f"**{text}**"
            error = f"±{100 * one['error']:.1f}"
            lines.append([_row_name(cell), f"false {name}", one["design"], text, error])
    return markdown(["", "error", "design", "rate", "error of it"], lines)


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
