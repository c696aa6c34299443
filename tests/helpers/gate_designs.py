"""Pairs of models with a known true change, for simulations of the gate and of intervals.

A design sets the number of documents, their groups, the correlation within a group, the share of
documents about which exactly one of the two models is correct, and the drop in accuracy. `draw`
returns the counts that a comparison of the two models would see.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Correlations within a group. A document follows its group with the square root as probability.
ALIKE = {"independent": 0.0, "correlated": 0.5, "whole": 1.0}
# Layouts with groups of several sizes, as numbers of groups times their sizes.
MIXED = ("4x50+100x1", "10x50+300x1", "24x50+800x1")
SHARES = tuple(
    (discordance, drop)
    for discordance in (0.005, 0.01, 0.02, 0.05, 0.1, 0.3)
    for drop in (0.005, 0.01, 0.02, 0.05)
    if drop <= discordance
)


@dataclass(frozen=True)
class Design:
    """Two models and the documents that both answered.

    Attributes:
        layout: Layout of the groups, such as ``4x50+100x1``; ``equal K`` for groups of K documents;
            or ``heavy tail``.
        documents: Number of documents.
        behaviour: A key of `ALIKE`, the correlation of the documents of a group.
        discordance: Share of documents about which exactly one of the two models is correct.
        drop: The baseline's accuracy minus the candidate's, at most ``discordance``.
    """

    layout: str
    documents: int
    behaviour: str
    discordance: float
    drop: float

    @property
    def sizes(self) -> Array:
        """Number of documents of each group, ``[groups]``, the largest first."""
        return sizes_of(self.layout, self.documents)


def sizes_of(layout: str, documents: int) -> Array:
    """Number of documents of each group, ``[groups]``, the largest first.

    Args:
        layout: Layout of a `Design`.
        documents: Total number; a layout such as ``4x50+100x1`` has its own total.
    """
    if "x" in layout:
        parts = (map(int, part.split("x")) for part in layout.split("+"))
        return np.concatenate([np.full(count, float(size)) for count, size in parts])
    if layout == "heavy tail":
        # Pareto sizes (index 1), at most a tenth of all documents each, and the same in every call.
        random = np.random.default_rng(documents)
        drawn = np.minimum(np.floor(1 / random.random(documents)), documents // 10)
    else:
        drawn = np.full(documents, float(layout.removeprefix("equal ")))
    sizes = drawn[: int(np.searchsorted(drawn.cumsum(), documents)) + 1]
    sizes[-1] -= sizes.sum() - documents
    return np.sort(sizes)[::-1]


def designs(documents: tuple[int, ...] = (100, 300, 1000, 5000)) -> list[Design]:
    """Designs with every combination of layout, behaviour, discordance and drop."""
    layouts = [(name, int(sizes_of(name, 0).sum())) for name in MIXED]
    layouts += itertools.product(("equal 1", "equal 3", "equal 6", "heavy tail"), documents)
    return [
        Design(layout, count, behaviour, *shares)
        for (layout, count), behaviour, shares in itertools.product(layouts, ALIKE, SHARES)
        if layout != "equal 1" or behaviour == "independent"
    ]


def draw(random: np.random.Generator, design: Design, trials: int) -> tuple[Array, Array, Array]:
    """Wins and losses by group ``[trials, groups]``, and the groups' sizes ``[groups]``."""
    sizes = design.sizes
    loss, win = (design.discordance + design.drop) / 2, (design.discordance - design.drop) / 2
    follows = ALIKE[design.behaviour] ** 0.5
    several = int((sizes > 1).sum())
    luck = random.random((trials, len(sizes)), dtype=np.float32)
    # Outcomes from the group's draw, which a single document uses too.
    losses, wins = (luck < loss).astype(float), (luck > 1 - win).astype(float)
    whole = random.binomial(sizes[:several].astype(int), follows, (trials, several))
    alone = sizes[:several].astype(int) - whole
    own_losses = random.binomial(alone, loss)
    own_wins = random.binomial(alone - own_losses, win / (1 - loss))
    losses[:, :several] = losses[:, :several] * whole + own_losses
    wins[:, :several] = wins[:, :several] * whole + own_wins
    return wins, losses, sizes


def draw_mean(
    random: np.random.Generator, design: Design, trials: int
) -> tuple[Array, Array, Array]:
    """A metric that is a mean with a heavy tail, such as nll, which changes for every document.

    A document's change has mean -``drop`` and Student's t distribution (4 degrees of freedom) with
    variance ``discordance``; documents of a group share it as ``behaviour`` says.

    Returns:
        The change of the mean ``[trials]``, the influence of each group on it ``[trials, groups]``,
        and the groups' sizes ``[groups]``.
    """
    sizes = design.sizes
    alike, shape = ALIKE[design.behaviour], (trials, len(sizes))
    scale = (design.discordance / 2) ** 0.5
    of_group = random.standard_t(4, shape) * sizes * alike**0.5
    own = random.standard_t(4, shape) * (sizes * (1 - alike)) ** 0.5
    totals = -design.drop * sizes + scale * (of_group + own)
    return _as_mean(totals, sizes)


def draw_rare(
    random: np.random.Generator, design: Design, trials: int
) -> tuple[Array, Array, Array]:
    """A metric that is a mean of rare events, such as predictions that are wrong by one label.

    Returns:
        The same values as `draw_mean`.
    """
    wins, losses, sizes = draw(random, design, trials)
    return _as_mean(wins - losses, sizes)


def _as_mean(totals: Array, sizes: Array) -> tuple[Array, Array, Array]:
    value = totals.sum(axis=1) / sizes.sum()
    return value, (totals - value[:, None] * sizes) / sizes.sum(), sizes
