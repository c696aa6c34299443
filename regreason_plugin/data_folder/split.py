"""Assigns groups of conversations to train, validation and test."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from itertools import accumulate

from regreason_plugin.core.splits import Split

# The paper has 10,000 train and 5,000 test conversations. The validation part is taken from its
# test conversations.
PARTS: dict[Split, int] = {"train": 10, "validation": 1, "test": 4}
# The order in which the splits take groups.
_ORDER: tuple[Split, ...] = ("test", "validation", "train")


def assign(
    groups: Mapping[str, Mapping[str, int]], seed: int, parts: Mapping[Split, float] = PARTS
) -> dict[str, Split]:
    """Assign every group to one split.

    Groups with the same datasets (an HH-RLHF pair has two) form a stratum. Within a stratum, an
    order that depends only on the groups' names and the seed decides: the first conversations are
    test (4/15 of them by default), the next validation (1/15), the rest train. A stratum of three
    groups or more has at least one group in each split; without a part for a split, it gets none.

    Args:
        groups: For each group, its number of conversations per dataset.
        seed: The seed of the order; another seed gives another split.
        parts: The relative size of each split, in conversations.

    Returns:
        The split of each group.
    """
    whole = sum(parts.values())
    order = [part for part in _ORDER if part in parts]
    ends = list(accumulate(parts[part] for part in order[:-1]))
    split: dict[str, Split] = {}
    for names in _strata(groups, seed):
        sizes = [sum(groups[name].values()) for name in names]
        # The middle of a group decides, so that a large group favours neither of two splits.
        middles = [end - size / 2 for end, size in zip(accumulate(sizes), sizes, strict=True)]
        shares = [middle / sum(sizes) * whole for middle in middles]
        cuts = [bisect(shares, end) for end in ends]
        if len(names) >= len(order):  # a few large groups must not leave a split empty
            for place, cut in enumerate(cuts):
                least = cuts[place - 1] + 1 if place else 1
                cuts[place] = min(max(cut, least), len(names) - len(cuts) + place)
        for number, name in enumerate(names):
            split[name] = order[bisect(cuts, number)]
    return split


def assign_by_label(
    labels: Mapping[str, Mapping[str, int]], seed: int, parts: Mapping[Split, float]
) -> dict[str, Split]:
    """Assign every group to one split, stratified by label.

    A group counts for the rarest of its labels, the one that the fewest groups have, and `assign`
    divides the groups of each label in the proportions of the parts. If a label is then in no
    group of a split, one of its groups is moved there, unless that would take a label from the
    split that the group is in.

    Args:
        labels: For each group, its number of rows per label.
        seed: See `assign`.
        parts: See `assign`; a split that is not among them gets nothing.

    Returns:
        The split of each group. Every label of as many groups as there are parts is in each split
        if no group has two labels; otherwise this is tried.
    """
    having: dict[str, list[str]] = defaultdict(list)
    for group, rows in labels.items():
        for label in rows:
            having[label].append(group)
    rarest_first = sorted(having, key=lambda label: (len(having[label]), label))
    rank = {label: place for place, label in enumerate(rarest_first)}
    strata = {
        group: {min(rows, key=rank.__getitem__): sum(rows.values())}
        for group, rows in labels.items()
    }
    split = assign(strata, seed, parts)
    held = {label: Counter(split[group] for group in having[label]) for label in having}
    for label in rarest_first:
        for part in reversed(_ORDER):
            if part not in parts or held[label][part]:
                continue
            movable = [
                group
                for group in having[label]
                if all(held[other][split[group]] > 1 for other in labels[group])
            ]
            if movable:
                moved = min(
                    movable,
                    key=lambda group: (sum(labels[group].values()), group_sort_key(group, seed)),
                )
                for other in labels[moved]:
                    held[other][split[moved]] -= 1
                    held[other][part] += 1
                split[moved] = part
    return split


def draw(
    groups: Mapping[str, Mapping[str, int]],
    labels: Mapping[str, Mapping[str, int]],
    seed: int,
    parts: Mapping[Split, float],
) -> tuple[dict[str, Split], list[str]]:
    """Assign every group to one split: by `assign`, unless that leaves a label out of a split.

    Args:
        groups: See `assign`.
        labels: See `assign_by_label`.
        seed: See `assign`.
        parts: See `assign`.

    Returns:
        The split of each group; and the labels because of which it is stratified by label, in
        which case `assign_by_label` makes it.
    """
    split = assign(groups, seed, parts)
    left_out = leaves_out(labels, split, parts)
    return (assign_by_label(labels, seed, parts) if left_out else split), left_out


def leaves_out(
    labels: Mapping[str, Mapping[str, int]],
    split: Mapping[str, Split],
    parts: Collection[Split],
) -> list[str]:
    """The labels that a split lacks though they have as many groups as there are parts, sorted."""
    groups: Counter[str] = Counter(label for rows in labels.values() for label in rows)
    held: dict[str, set[Split]] = defaultdict(set)
    for group, rows in labels.items():
        for label in rows:
            held[label].add(split[group])
    return sorted(
        label
        for label, splits in held.items()
        if len(splits) < len(parts) and groups[label] >= len(parts)
    )


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
