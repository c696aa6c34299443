"""The cells of the operating characteristics: their designs, numbers of pages and names."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from helpers import gate_designs
from helpers.drawn_estimates import Drawn, promise, tail_rate
from helpers.gate_characteristics import METRICS, layouts, over_looks, worst
from helpers.known_truth import Design
from helpers.simulated_pages import MARGIN, tally

Counts = dict[str, Any]
Run = Callable[[list[int], int], Counts]


@dataclass(frozen=True)
class Cell:
    """One row of a table.

    Attributes:
        name: Name of the table, a colon, and a description of the row.
        pages: Number of pages that are simulated at full size.
        work: Estimated seconds for all pages.
        run: Function of a seed and a number of pages, which returns the counts.
        design: The simulated design; None for a cell without pages.
    """

    name: str
    pages: int
    work: float
    run: Run
    design: Design | None = None


# --- pages ------------------------------------------------------------------------------------

# Each pair of levels of any two factors occurs together in some cell, if such a design exists.
FACTORS: dict[str, tuple[Any, ...]] = {
    "groups": ("equal", "4x50+100x1", "10x50+300x1", "heavy tail"),
    "seeds": (1, 2, 3, 5, 10),
    "discordance": (0.005, 0.02, 0.1, 0.3),
    "accuracy": (0.02, 0.5, 0.9, 0.99),
    "spread": (0.0, 0.005, 0.024),
    "arms": (2, 7),
    "alike": (0.0, 0.5, 1.0),
    "effects": ((), (0.0, 0.005), (0.0, 0.05)),
}


def all_pairs() -> list[Design]:
    """A small set of designs, chosen greedily, that includes every possible pair of levels."""
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
    """A description of a design by some of its fields, in their order."""
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


def _page_cells() -> list[Cell]:
    designs = all_pairs()
    # True differences that come from a few large groups, which a sample may lack; and models with
    # high accuracy, whose errors are rare.
    for seeds, alike in itertools.product((1, 3), (0.5, 1.0)):
        heavy = Design("10x50+300x1", seeds, discordance=0.02, alike=alike, effects=(0.0, 0.05))
        designs += [heavy, Design("10x50+300x1", seeds, accuracy=0.9, alike=alike)]
    cells = [_page_cell("coverage", design, 800) for design in dict.fromkeys(designs)]
    shown = (*FACTORS, "settings")
    # Three axes share each conversation; the seeds' effects are partly common to all settings.
    for groups, seeds, discordance, accuracy, spread, alike in (
        ("equal", 3, 0.1, 0.5, 0.024, 0.5),
        ("4x50+100x1", 5, 0.02, 0.9, 0.005, 0.5),
        ("heavy tail", 3, 0.005, 0.99, 0.0, 0.0),
        ("10x50+300x1", 1, 0.02, 0.9, 0.005, 1.0),
    ):
        design = Design(
            groups=groups,
            seeds=seeds,
            settings=18,
            discordance=discordance,
            accuracy=accuracy,
            spread=spread,
            alike=alike,
        )
        cells.append(_page_cell("coverage of eighteen settings", design, 300, *shown))
    for settings, pages in ((1, 800), (18, 250)):
        for seeds, spread in itertools.product((1, 2, 3, 5), (0.0, 0.024)):
            design = Design(seeds=seeds, arms=7, settings=settings, spread=spread)
            names = ("settings", "seeds", "spread")
            cells.append(_page_cell("no effect", design, pages, *names, claims_only=True))
    for groups, seeds, discordance, spread in (
        ("3000x1", 1, 0.02, 0.0),
        ("3000x1", 3, 0.05, 0.0),
        ("1000x3", 3, 0.05, 0.005),
        ("1000x3", 5, 0.1, 0.005),
    ):
        for effect in (MARGIN, 0.0):
            design = Design(
                groups=groups,
                seeds=seeds,
                discordance=discordance,
                spread=spread,
                effects=(0.0, effect),
            )
            names = ("groups", "seeds", "discordance", "spread", "effects")
            cells.append(_page_cell("equivalence", design, 800, *names, claims_only=True))
    for groups, seeds, spread, effect in itertools.product(
        ("10x50+300x1", "1000x3"), (1, 3), (0.0, 0.005), (0.01, 0.02, 0.05)
    ):
        design = Design(groups=groups, seeds=seeds, spread=spread, effects=(0.0, effect))
        names = ("groups", "seeds", "spread", "effects")
        cells.append(_page_cell("power", design, 300, *names, claims_only=True))
    # A sharp against a dull model, both calibrated; and a sharp against an overconfident model.
    for groups, seeds, sharpness in itertools.product(
        ("equal", "4x50+100x1", "1000x3"), (1, 3), ((1.0, 0.0), (1.0, 2.0))
    ):
        design = Design(groups=groups, seeds=seeds, sharpness=sharpness, noise=0.0)
        names = ("groups", "seeds", "sharpness")
        cells.append(_page_cell("calibration", design, 400, *names))
    for seeds in (3, 5):
        design = Design(
            groups="1000x3", seeds=seeds, arms=7, spread=0.008, spreads=(1.0, 3.0), alike=0.0
        )
        cells.append(_page_cell("unequal seeds", design, 400, "groups", "seeds", "spread"))
    return cells


# --- estimates and the gate -------------------------------------------------------------------


def _drawn_cells() -> list[Cell]:
    cells = []
    for seeds, (words, of_seeds) in itertools.product(
        (3, 5), (("no variance of seeds", 0.0), ("seeds dominate", 5.0))
    ):
        cells.append(
            Cell(
                f"tail: {seeds} seeds, {words}",
                100_000,
                20.0,
                partial(tail_rate, Drawn(seeds=seeds, of_seeds=of_seeds)),
            )
        )
    for groups, seeds, of_seeds in itertools.product(
        ("equal", "4x50+100x1"), (1, 3, 5), (0.0, 1.0, 5.0)
    ):
        if seeds > 1 or not of_seeds:
            drawn = Drawn(groups, seeds, of_seeds)
            name = f"detectable: groups {groups}, seeds {seeds}, seeds / groups {of_seeds:g}"
            cells.append(Cell(name, 1000, 8.0, partial(promise, drawn)))
    return cells


def _gate_cells() -> list[Cell]:
    cells = [
        Cell(
            f"gate: {metric}, {layout}",
            1000,
            0.1 * len(chosen),
            partial(worst, metric, chosen),
        )
        for metric in METRICS
        for layout, chosen in layouts().items()
        if metric == "accuracy" or layout in ("24x50+800x1", "equal 3")
    ]
    for design in (
        gate_designs.Design("equal 3", 5000, "correlated", 0.1, 0.02),
        gate_designs.Design("24x50+800x1", 2000, "whole", 0.02, 0.02),
    ):
        for planned in (False, True):
            name = f"looks: {design.layout}, {'planned' if planned else 'each at 0.05'}"
            cells.append(Cell(name, 4000, 3.0, partial(over_looks, design, planned)))
    return cells


CELLS: list[Cell] = [*_page_cells(), *_drawn_cells(), *_gate_cells()]
