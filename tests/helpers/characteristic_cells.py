"""The cells of the operating characteristics: what is simulated, how often, under which name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from helpers.known_truth import Design
from helpers.simulated_pages import tally

Counts = dict[str, Any]
Run = Callable[[list[int], int], Counts]


@dataclass(frozen=True)
class Cell:
    """One row of a table.

    Attributes:
        name: The table's, a colon, and what tells its row.
        pages: How many are simulated at full size.
        work: About how many seconds that takes.
        run: From a seed and a number of pages to what was counted.
        design: What is simulated; None of what has no pages.
    """

    name: str
    pages: int
    work: float
    run: Run
    design: Design | None = None


# --- pages ------------------------------------------------------------------------------------

# Of these every pair of levels of any two comes together in some cell, as far as it is possible.
FACTORS: dict[str, tuple[Any, ...]] = {
    "groups": ("equal", "4x50+100x1", "10x50+300x1", "heavy tail"),
    "seeds": (1, 2, 3, 5, 10),
    "discordance": (0.005, 0.02, 0.1, 0.3),
    "accuracy": (0.02, 0.5, 0.9, 0.99),
    "spread": (0.0, 0.005, 0.024),
    "arms": (2, 7),
    "alike": (0.0, 0.5, 1.0),
}


def all_pairs() -> list[Design]:
    """Few designs that hold every possible pair of levels, greedily chosen."""
    designs = [
        design
        for levels in itertools.product(*FACTORS.values())
        if (design := Design(**dict(zip(FACTORS, levels, strict=True)))).possible
    ]
    pairs = [
        frozenset(itertools.combinations([(name, getattr(one, name)) for name in FACTORS], 2))
        for one in designs
    ]
    missing, chosen = frozenset[Any]().union(*pairs), []
    while missing:
        best = int(np.argmax([len(missing & of_design) for of_design in pairs]))
        chosen.append(designs[best])
        missing -= pairs[best]
    return chosen


def said(design: Design, *names: str) -> str:
    """What tells a design, in the order of its fields."""
    shown = names or tuple(FACTORS)
    return ", ".join(
        f"{one.name} {getattr(design, one.name)}" for one in fields(design) if one.name in shown
    )


def _page_cell(table: str, design: Design, pages: int, *names: str, **options: Any) -> Cell:
    models = design.seeds * design.arms
    seconds = 0.015 + 0.0008 * models * design.settings

    def run(seed: list[int], count: int) -> Counts:
        shares = tally(design, count, seed, **options).shares
        return {name: [one.pages, one.total, one.squares] for name, one in shares.items()}

    return Cell(f"{table}: {said(design, *names)}", pages, pages * seconds, run, design)


COVERAGE = [_page_cell("coverage", design, 800) for design in all_pairs()]
CELLS: list[Cell] = [*COVERAGE]
