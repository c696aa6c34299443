"""The split: whole groups, stable, close to 10 : 1 : 4."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.data_folder.split import (
    assign,
    assign_by_label,
    beyond,
    draw,
    leaves_out,
)

groups = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4),
    st.dictionaries(
        st.sampled_from(["coqa", "hh_chosen", "hh_rejected"]), st.integers(1, 5)
    ).filter(bool),
    min_size=1,
    max_size=60,
)


@given(groups, st.integers(0, 99), st.randoms())
def test_the_order_of_groups_does_not_matter(groups, seed, random) -> None:  # type: ignore[no-untyped-def]
    names = list(groups)
    random.shuffle(names)
    assert assign({name: groups[name] for name in names}, seed) == assign(groups, seed)
    assert set(assign(groups, seed)) == set(groups)


@pytest.mark.parametrize("size", [1, 3])
def test_the_paper_sizes_come_out(size: int) -> None:
    split = assign({f"group {i}": {"coqa": size} for i in range(15_000 // size)}, seed=0)
    counts = Counter(split.values())
    for name, expected in {"train": 10_000, "validation": 1_000, "test": 4_000}.items():
        assert abs(counts[name] * size - expected) <= size


def test_each_dataset_is_split_in_the_same_proportions() -> None:
    groups = {f"c{i}": {"coqa": 1} for i in range(150)} | {
        f"a{i}": {"cornell": 1} for i in range(30)
    }
    split = assign(groups, seed=5)
    small = Counter(split[name] for name in groups if name[0] == "a")
    assert small == {"train": 20, "validation": 2, "test": 8}


def test_another_seed_is_another_split() -> None:
    groups = {f"group {i}": {"coqa": 1} for i in range(300)}
    assert assign(groups, 1) != assign(groups, 2)


@given(st.lists(st.integers(1, 50), min_size=3, max_size=12), st.integers(0, 99))
def test_three_groups_are_enough_for_three_splits(sizes: list[int], seed: int) -> None:
    split = assign({f"group {i}": {"coqa": size} for i, size in enumerate(sizes)}, seed)
    assert set(split.values()) == {"train", "validation", "test"}


@given(groups, st.integers(0, 99), st.integers(1, 80), st.integers(1, 80))
def test_a_limit_keeps_whole_groups_and_those_of_a_smaller_one(  # type: ignore[no-untyped-def]
    groups, seed, one, other
) -> None:
    split = assign(groups, seed)
    small, large = sorted((one, other))
    kept = {}
    for limit in (small, large):
        left_out = beyond(groups, split, seed, {"train": limit})
        assert all(split[name] == "train" for name in left_out)
        kept[limit] = {name for name in groups if split[name] == "train"} - left_out
        assert sum(sum(groups[name].values()) for name in kept[limit]) <= limit
    assert kept[small] <= kept[large]


def test_a_limit_keeps_the_proportion_of_the_datasets_and_other_splits() -> None:
    groups = {f"c{i}": {"coqa": 1} for i in range(1500)} | {
        f"a{i}": {"cornell": 3} for i in range(250)
    }
    split = assign(groups, seed=0)
    left_out = beyond(groups, split, 0, {"train": 300, "test": 90})
    kept = Counter[tuple[str, str]]()
    for name, datasets in groups.items():
        if name not in left_out:
            (dataset,) = datasets
            kept[split[name], dataset] += datasets[dataset]
    # Two thirds of the conversations are from coqa, to within a group of three.
    assert abs(kept["train", "coqa"] - 200) <= 1
    assert 97 <= kept["train", "cornell"] <= 101
    assert abs(kept["test", "coqa"] - 60) <= 1
    assert kept["validation", "coqa"] == 100


PARTS = {"train": 0.65, "validation": 0.1, "test": 0.25}


@given(
    st.dictionaries(
        st.integers(0, 400).map(str),
        st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), min_size=1, max_size=1),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 99),
    st.randoms(),
)
def test_by_label_each_label_has_its_share(labels, seed, random) -> None:  # type: ignore[no-untyped-def]
    split = assign_by_label(labels, seed, PARTS)  # type: ignore[arg-type]
    names = list(labels)
    random.shuffle(names)
    assert split == assign_by_label({name: labels[name] for name in names}, seed, PARTS)  # type: ignore[arg-type]
    for label in "abcd":
        own = [name for name in labels if label in labels[name]]
        rows = sum(labels[name][label] for name in own)
        for part, share in PARTS.items():
            held = sum(labels[name][label] for name in own if split[name] == part)
            if len(own) >= 3:
                assert held
                # One group of at most three rows for rounding, and one to have any.
                assert abs(held - share * rows) <= 6


def test_three_rows_among_three_hundred_are_one_in_each_split() -> None:
    """A split without regard to labels leaves the label out of a split for nine seeds in ten."""
    groups = {f"g{n}": {"mine": 1} for n in range(300)}
    labels = {f"g{n}": {"rare" if n < 3 else "common": 1} for n in range(300)}
    kept = 0
    for seed in range(40):
        plain = assign(groups, seed, PARTS)  # type: ignore[arg-type]
        rare = {plain[f"g{n}"] for n in range(3)}
        split, left_out = draw(groups, labels, seed, PARTS)  # type: ignore[arg-type]
        assert {split[f"g{n}"] for n in range(3)} == {"train", "validation", "test"}
        assert left_out == ([] if len(rare) == 3 else ["rare"])
        if len(rare) == 3:
            assert split == plain
            kept += 1
        counts = Counter(split.values())
        assert abs(counts["test"] - 75) <= 1
        assert abs(counts["validation"] - 30) <= 1
    assert 0 < kept < 40


def test_a_label_whose_groups_count_for_a_rarer_one_is_in_every_split() -> None:
    """`p` has four groups and `q` five; three have both, so two count for `q` alone."""
    common = {f"c{n}": {"x": 1} for n in range(60)}
    rare = {f"b{n}": {"p": 1, "q": 1} for n in range(3)} | {"p": {"p": 1}}
    labels = common | rare | {"q0": {"q": 1}, "q1": {"q": 1}}
    for seed in range(60):
        split = assign_by_label(labels, seed, PARTS)  # type: ignore[arg-type]
        assert not leaves_out(labels, split, PARTS)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_labels_that_share_groups_are_still_in_every_split(seed: int) -> None:
    random = Random(seed)
    common = {f"c{n}": {"x": 3, "y": 1} for n in range(60)}
    # Each rare label has five groups, which it shares with the next one.
    rare = {f"r{n}": {"pqrst"[n % 5]: 1, "pqrst"[(n + 1) % 5]: 1, "x": 2} for n in range(15)}
    labels = dict(random.sample(list((common | rare).items()), 75))
    split = assign_by_label(labels, seed, PARTS)  # type: ignore[arg-type]
    assert not leaves_out(labels, split, PARTS)  # type: ignore[arg-type]


def test_without_a_part_a_split_gets_nothing() -> None:
    labels = {f"g{n}": {"rare" if n < 2 else "common": 1} for n in range(100)}
    parts = {"train": 0.9, "validation": 0.1}
    for seed in range(10):
        split = assign_by_label(labels, seed, parts)  # type: ignore[arg-type]
        assert Counter(split.values()) == {"train": 89, "validation": 11}
        assert {split["g0"], split["g1"]} == {"train", "validation"}
