"""Which models of two arms are held side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class SeedPairs(NamedTuple):
    """Pairs of models.

    Attributes:
        places: Places in the arm's seeds and in the baseline's, a pair each.
        same: Whether the two of a pair share their seed, as far as both have one.
        left_out: Seeds of either arm that have no partner, as text.
        repeated: Whether one model without a seed stands in every pair.
    """

    places: list[tuple[int, int]]
    same: bool
    left_out: list[str]
    repeated: bool = False


def pair_seeds(arm: Sequence[Any], baseline: Sequence[Any]) -> SeedPairs:
    """Pair models by their seed, or in their order where the arms have no seed in common.

    A single model without a seed, which no training made or no chance had a part in, stands
    against every model of the other arm.

    Models of one seed saw the same rows in the same order from the same start, which makes
    their difference less noisy. Pairs of unequal seeds gain nothing from pairing, and are as
    valid: the seeds' own spread is then that of both arms.
    """
    place = {seed: index for index, seed in enumerate(baseline)}
    shared = [(index, place[seed]) for index, seed in enumerate(arm) if seed in place]
    alone = len(arm) == len(baseline) == 1
    if list(arm) == [None]:
        return SeedPairs([(0, i) for i in range(len(baseline))], True, [], not alone)
    if list(baseline) == [None]:
        return SeedPairs([(i, 0) for i in range(len(arm))], True, [], not alone)
    if shared and not alone:
        ours, theirs = ({pair[side] for pair in shared} for side in (0, 1))
        left = [f"{seed} of the arm" for i, seed in enumerate(arm) if i not in ours]
        left += [f"{seed} of the baseline" for i, seed in enumerate(baseline) if i not in theirs]
        return SeedPairs(shared, True, left)
    count = min(len(arm), len(baseline))
    left = [f"{seed} of the arm" for seed in arm[count:]]
    left += [f"{seed} of the baseline" for seed in baseline[count:]]
    return SeedPairs([(i, i) for i in range(count)], list(arm) == list(baseline), left)
