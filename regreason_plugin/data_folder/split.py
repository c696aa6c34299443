"""Which conversation goes to train, validation or test."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# The paper's 10,000 train and 5,000 test, the validation share taken from the latter.
PARTS: dict[Split, int] = {"train": 10, "validation": 1, "test": 4}


def assign(
    groups: Mapping[str, Mapping[str, int]], seed: int, parts: Mapping[Split, float] = PARTS
) -> dict[str, Split]:
    """Put every group on one side.

    Within the groups of the same datasets (an HH-RLHF pair is in two), groups are put
    in an order that only their name and the seed decide; along it, the first of
    the conversations are test (4/15 by default), the next validation (1/15), the rest train.
    Three groups are enough for each split to have one.

    Args:
        groups: For each group, its number of conversations by dataset.
        seed: Another seed gives another split.
        parts: How much of the conversations each split gets, in any unit.

    Returns:
        The split of each group.
    """
    whole = sum(parts.values())
    split: dict[str, Split] = {}
    for names in _strata(groups, seed):
        sizes = [sum(groups[name].values()) for name in names]
        # A group counts where its middle lies, so a large one shifts neither side.
        middles = [end - size / 2 for end, size in zip(accumulate(sizes), sizes, strict=True)]
        shares = [middle / sum(sizes) * whole for middle in middles]
        first = bisect(shares, parts["test"])
        second = bisect(shares, parts["test"] + parts["validation"])
        if len(names) >= len(SPLITS):  # a few large groups: one for each split at least
            first = min(max(first, 1), len(names) - 2)
            second = min(max(second, first + 1), len(names) - 1)
        for number, name in enumerate(names):
            split[name] = "test" if number < first else "validation" if number < second else "train"
    return split


def beyond(
    groups: Mapping[str, Mapping[str, int]],
    split: Mapping[str, Split],
    seed: int,
    limits: Mapping[Split, int],
) -> set[str]:
    """The groups that are left out so that a split has no more conversations than its limit.

    Groups are taken in the order of `assign`, so those of a smaller limit are among those of a
    larger one. Groups of different datasets keep their proportion.

    Args:
        groups: For each group, its number of conversations by dataset.
        split: Of each group, as `assign` gives it.
        seed: That of `assign`.
        limits: The most conversations of a split; one that is not named keeps all.

    Returns:
        Their names.
    """
    sizes = {name: sum(datasets.values()) for name, datasets in groups.items()}
    out: set[str] = set()
    for part, limit in limits.items():
        strata = [[n for n in names if split[n] == part] for names in _strata(groups, seed)]
        whole = sum(sizes[name] for names in strata for name in names)
        for names in strata:
            room = limit * sum(sizes[name] for name in names) / max(whole, 1)
            ends = accumulate(sizes[name] for name in names)
            out.update(name for name, end in zip(names, ends, strict=True) if end > room)
    return out


def _strata(groups: Mapping[str, Mapping[str, int]], seed: int) -> list[list[str]]:
    """The groups of the same datasets, in the order that their names and the seed decide."""
    strata: dict[tuple[str, ...], list[str]] = {}
    for group, datasets in groups.items():
        strata.setdefault(tuple(sorted(datasets)), []).append(group)
    for names in strata.values():
        names.sort(key=lambda name: order_of(name, seed))
    return list(strata.values())


def order_of(group: str, seed: int) -> bytes:
    """The sort key of a group in an order that only its name and the seed decide."""
    return hashlib.sha256(f"{seed}\0{group}".encode()).digest()
