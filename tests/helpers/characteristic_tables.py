"""The operating characteristics as tables: what was counted beside the bar that it has to keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from helpers.characteristic_cells import CELLS, Cell
from helpers.known_truth import GROUPS, Design
from helpers.simulated_pages import METRICS, Share

LEAST, MOST, FEW = 0.93, 0.97, 20
MOST_DASHES, MOST_FALSE = 0.05, 0.06
# A share lies outside of its bar where it does so by more than this many Monte-Carlo errors.
_ERRORS = 2.0

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
}


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Every table that there are results for, by its title."""
    by_title: dict[str, list[tuple[Cell, dict[str, Any]]]] = {}
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
        return "–"
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
        if name in ("discordance", "spread"):
            return f"{100 * value:g} %"
        return f"{value:g}" if isinstance(value, float) else str(value)

    return [text(name) for name in names]


def _coverage(rows: list[tuple[Cell, dict[str, Any]]]) -> str:
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
        error = max(share(counts, f"cover {kind} {m}").error for kind in kinds for m in ("acc",))
        lines.append([*line, shown(dashes, 0.0, bar), f"±{100 * error:.1f}"])
    prefix = ["", "pooled "] if len(kinds) > 1 else [""]
    head = [NAMES[name] for name in names] + ["count"]
    for of_kind in prefix:
        head += [of_kind + title for title in (*TITLES.values(), "alone")]
    return markdown([*head, "dashes", "error"], lines)


def _claims(rows: list[tuple[Cell, dict[str, Any]]]) -> str:
    names = ("settings", "seeds", "spread", "groups", "accuracy", "discordance", "alike")
    lines = []
    for cell, counts in rows:
        one = share(counts, "false claim")
        lines.append(
            [
                *_levels(cell.design, names),
                shown(one, 0.0, MOST_FALSE),
                shown(share(counts, "any claim")),
                f"±{100 * one.error:.1f}",
            ]
        )
    return markdown([*(NAMES[n] for n in names), "false claim", "any claim", "error"], lines)


_TABLES = {"coverage": _coverage, "coverage of eighteen settings": _coverage, "no effect": _claims}
