"""The split: whole groups, stable, close to 10 : 1 : 4."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.data_folder.split import assign, beyond

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
