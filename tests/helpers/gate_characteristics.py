"""How often the gate errs in the designs of `gate_designs`, and over several looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from helpers.gate_designs import Design, designs, draw, draw_mean, draw_rare

from regreason_plugin.compare.gate_bounds import Bounded, accuracy_change, other_metric

ALPHA = 0.05
# The worst of many designs is partly chance: those are drawn again, this many times as often.
_AGAIN, _WORST = 10, 4


def of_accuracy(random: np.random.Generator, design: Design, trials: int) -> Bounded:
    """The change of accuracy in each trial."""
    return accuracy_change(*draw(random, design, trials))


def of_mean(random: np.random.Generator, design: Design, trials: int) -> Bounded:
    """The change of a metric that is a mean with a heavy tail, such as nll."""
    return other_metric(*draw_mean(random, design, trials))


def of_rare(random: np.random.Generator, design: Design, trials: int) -> Bounded:
    """The change of a metric that is a mean of rare events, such as mae."""
    return other_metric(*draw_rare(random, design, trials))


METRICS: dict[str, Callable[[np.random.Generator, Design, int], Bounded]] = {
    "accuracy": of_accuracy,
    "nll": of_mean,
    "mae": of_rare,
}


def errors(
    metric: str, design: Design, random: np.random.Generator, trials: int
) -> tuple[float, float]:
    """How often the gate passes, and fails, where the true drop is exactly the allowed one."""
    low, high = METRICS[metric](random, design, trials).bounds(ALPHA)
    return float((low > -design.drop).mean()), float((high < -design.drop).mean())


def worst(
    metric: str, chosen: Sequence[Design], seed: list[int], trials: int
) -> dict[str, dict[str, Any]]:
    """The designs in which the gate passes, or fails, wrongly most often.

    Returns:
        ``pass`` and ``fail``, each with the design, the rate and its Monte-Carlo error.
    """
    random = np.random.default_rng(seed)
    rates = np.array([errors(metric, design, random, trials) for design in chosen])
    found = {}
    for side, name in enumerate(("pass", "fail")):
        again = []
        for place in np.argsort(-rates[:, side])[:_WORST]:
            parts = [errors(metric, chosen[place], random, trials)[side] for _ in range(_AGAIN)]
            again.append((float(np.mean(parts)), int(place)))
        rate, place = max(again)
        found[name] = {
            "design": _said(chosen[place]),
            "rate": rate,
            "error": (max(rate * (1 - rate), 1 / trials) / (trials * _AGAIN)) ** 0.5,
            "designs": len(chosen),
        }
    return found


def layouts() -> dict[str, list[Design]]:
    """All designs by how their documents come in groups."""
    by_layout: dict[str, list[Design]] = {}
    for design in designs():
        by_layout.setdefault(design.layout, []).append(design)
    return by_layout


def _said(design: Design) -> str:
    return (
        f"{design.documents} documents, {design.behaviour}, "
        f"{100 * design.discordance:g} % disagree, drop {design.drop:g}"
    )
