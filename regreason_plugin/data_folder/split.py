"""Assigns groups of conversations to train, validation and test."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate

from regreason_plugin.core.splits import SPLITS, Split

# The paper has 10,000 train and 5,000 test conversations. The validation part is taken from its
# test conversations.
PARTS: dict[Split, int] = {"train": 10, "validation": 1, "test": 4}


def assign(
    groups: Mapping[str, Mapping[str, int]], seed: int, parts: Mapping[Split, float] = PARTS
) -> dict[str, Split]:
    """Assign every group to one split.

    Groups with the same datasets (an HH-RLHF pair has two) form a stratum. Within a stratum, an
    order that depends only on the groups' names and the seed decides: the first conversations are
    test (4/15 of them by default), the next validation (1/15), the rest train. A stratum of three
    groups or more has at least one group in each split.

    Args:
        groups: For each group, its number of conversations per dataset.
        seed: The seed of the order; another seed gives another split.
        parts: The relative size of each split, in conversations.

    Returns:
        The split of each group.
    """
    whole = sum(parts.values())
    split: dict[str, Split] = {}
    for names in _strata(groups, seed):
        sizes = [sum(groups[name].values()) for name in names]
        # The middle of a group decides, so that a large group favours neither of two splits.
        middles = [end - size / 2 for end, size in zip(accumulate(sizes), sizes, strict=True)]
        shares = [middle / sum(sizes) * whole for middle in middles]
        first = bisect(shares, parts["test"])
        second = bisect(shares, parts["test"] + parts["validation"])
        if len(names) >= len(SPLITS):  # a few large groups must not leave a split empty
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
    """The groups to leave out so that no split has more conversations than its limit.

    Each split keeps its first groups in the order of `assign`, so a smaller limit keeps a subset
    of what a larger limit keeps. The strata keep their proportions.

    Args:
        groups: For each group, its number of conversations per dataset.
        split: The split of each group, from `assign`.
        seed: The seed that `assign` used.
        limits: The most conversations per split; a split that is not named keeps all.

    Returns:
        The names of the groups to leave out.
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
    """One list of groups per set of datasets, each sorted by `group_sort_key`."""
    strata: dict[tuple[str, ...], list[str]] = {}
    for group, datasets in groups.items():
        strata.setdefault(tuple(sorted(datasets)), []).append(group)
    for names in strata.values():
        names.sort(key=lambda name: group_sort_key(name, seed))
    return list(strata.values())


def group_sort_key(group: str, seed: int) -> bytes:
    """The sort key of a group, which depends only on its name and the seed."""
    return hashlib.sha256(f"{seed}\0{group}".encode()).digest()
