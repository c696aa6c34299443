"""Error rates of the gate in the designs of `gate_designs`, and over several looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from helpers.gate_designs import Design, designs, draw, draw_mean, draw_rare

from regreason_plugin.comparison.gate_bounds import Bounded, accuracy_change, other_metric
from regreason_plugin.comparison.planned_looks import planned_look

ALPHA = 0.05
LOOKS = 4
# The worst of many designs are partly the worst by chance. So the `_WORST` worst are simulated
# again, with `_AGAIN` times as many trials.
_AGAIN, _WORST = 10, 4


def of_accuracy(random: np.random.Generator, design: Design, trials: int) -> Bounded:
    """The bounds for the change in accuracy in each trial."""
    return accuracy_change(*draw(random, design, trials))


def of_mean(random: np.random.Generator, design: Design, trials: int) -> Bounded:
    """The bounds for the change in a metric that is a mean with a heavy tail, such as nll."""
    return other_metric(*draw_mean(random, design, trials))


def of_rare(random: np.random.Generator, design: Design, trials: int) -> Bounded:
    """The bounds for the change in a metric that is a mean of rare events, such as mae."""
    return other_metric(*draw_rare(random, design, trials))


METRICS: dict[str, Callable[[np.random.Generator, Design, int], Bounded]] = {
    "accuracy": of_accuracy,
    "nll": of_mean,
    "mae": of_rare,
}


def errors(
    metric: str, design: Design, random: np.random.Generator, trials: int
) -> tuple[float, float]:
    """How often the gate passes and fails if the true drop equals the allowed drop."""
    low, high = METRICS[metric](random, design, trials).bounds(ALPHA)
    return float((low > -design.drop).mean()), float((high < -design.drop).mean())


def worst(
    metric: str, chosen: Sequence[Design], seed: list[int], trials: int
) -> dict[str, dict[str, Any]]:
    """The designs in which the gate wrongly passes, or wrongly fails, most often.

    Returns:
        By ``pass`` and ``fail``: the design, the rate and its Monte-Carlo error.
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
        found[name] = _rate(chosen[place], rate, trials * _AGAIN)
    return found


def _rate(design: Design, rate: float, trials: int) -> dict[str, Any]:
    error = (max(rate * (1 - rate), 1 / trials) / trials) ** 0.5
    return {"design": _said(design), "rate": rate, "error": error}


def over_looks(
    design: Design, planned: bool, seed: list[int], trials: int
) -> dict[str, dict[str, Any]]:
    """How often the gate wrongly passes and fails at any of four looks at growing data.

    Args:
        design: Design of all documents; each look adds a quarter of the groups.
        planned: Whether the looks share alpha by a spending plan; if not, each look uses all of it.
        seed: Seed of the random numbers.
        trials: Number of trials.
    """
    random = np.random.default_rng(seed)
    wins, losses, sizes = draw(random, design, trials)
    order = random.permutation(len(sizes))
    passed = failed = np.zeros(trials, dtype=bool)
    for look in range(1, LOOKS + 1):
        seen = order[: round(len(sizes) * look / LOOKS)]
        change = accuracy_change(wins[:, seen], losses[:, seen], sizes[seen])
        low, high = change.bounds(planned_look(look, LOOKS, ALPHA).alpha if planned else ALPHA)
        # The first look that decides ends the trial.
        passes, fails = low > -design.drop, high < -design.drop
        passed, failed = passed | (passes & ~failed), failed | (fails & ~passed)
    return {
        name: _rate(design, float(wrong.mean()), trials)
        for name, wrong in (("pass", passed), ("fail", failed))
    }


def layouts() -> dict[str, list[Design]]:
    """All designs by the layout of their groups."""
    by_layout: dict[str, list[Design]] = {}
    for design in designs():
        by_layout.setdefault(design.layout, []).append(design)
    return by_layout


def _said(design: Design) -> str:
    return (
        f"{design.documents} documents, {design.behaviour}, "
        f"{100 * design.discordance:g} % disagree, drop {design.drop:g}"
    )
