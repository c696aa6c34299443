"""Sample packing keeps every row in every epoch, on one process and on several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st

from regreason_plugin.train.whole_epoch_sampler import FamilySampler, WholeEpochSampler

pytestmark = pytest.mark.integration

CAPACITY = 100


class Shuffled:
    """A sampler with a different order in every epoch."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        order = np.random.default_rng(self.epoch).permutation(self.rows)
        return iter(order.tolist())


def make(lengths: list[int], batch_size: int, processes: int, bin_size: int = 0) -> Any:
    return WholeEpochSampler(
        Shuffled(len(lengths)), batch_size=batch_size, batch_max_len=CAPACITY,
        lengths=np.array(lengths), bin_size=bin_size, processes=processes,
    )  # fmt: skip


def on_processes(sampler: Any, processes: int) -> list[list[list[list[int]]]]:
    """The batches that accelerate gives to each process in one epoch."""
    shards = [BatchSamplerShard(sampler, processes, rank, even_batches=False)
              for rank in range(processes)]  # fmt: skip
    epoch = sampler.sampler.epoch
    found = []
    for shard in shards:
        sampler.sampler.epoch = epoch
        found.append(list(shard))
        assert len(found[-1]) == len(shard)
    return found


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 45), min_size=40, max_size=120),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([0, 3]),
)
def test_an_epoch_has_every_row_once(
    lengths: list[int], batch_size: int, processes: int, bin_size: int
) -> None:
    sampler = make(lengths, batch_size, processes, bin_size)
    for _ in range(3):
        shared = on_processes(sampler, processes)
        # Every process has the same number of batches, and all batches are full.
        assert {len(batches) for batches in shared} == {len(sampler) // processes}
        assert all(len(batch) == batch_size for batches in shared for batch in batches)
        packs = [pack for batches in shared for batch in batches for pack in batch]
        assert Counter(row for pack in packs for row in pack) == Counter(range(len(lengths)))
        for pack in packs:
            assert 0 < sum(lengths[row] for row in pack) <= CAPACITY
            assert not bin_size or len(pack) <= bin_size


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 5), min_size=20, max_size=60),
    st.integers(5, 12),
    st.integers(1, 4),
)
def test_an_epoch_has_every_family_once_and_whole(
    sizes: list[int], most: int, processes: int
) -> None:
    ends = np.cumsum(sizes).tolist()
    families = [tuple(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    sampler = FamilySampler(Shuffled(len(families)), families, most, processes)
    orders = []
    for _ in range(2):
        shared = on_processes(sampler, processes)
        assert {len(batches) for batches in shared} == {len(sampler) // processes}
        batches = [batch for of_process in shared for batch in of_process]
        assert Counter(row for batch in batches for row in batch) == Counter(range(ends[-1]))
        assert all(0 < len(batch) <= most for batch in batches)
        for family in families:
            assert len([batch for batch in batches if {*family} & {*batch}]) == 1
        orders.append(batches)
    assert orders[0] != orders[1]


def test_a_family_is_split_only_where_processes_need_another_batch() -> None:
    families = [(0, 1, 2), (3, 4, 5)]
    (one,) = FamilySampler(Shuffled(2), families, 6, 1)
    assert sorted(one) == [0, 1, 2, 3, 4, 5]
    assert sorted(map(sorted, FamilySampler(Shuffled(2), families, 6, 2))) == [[0, 1, 2], [3, 4, 5]]
    four = list(FamilySampler(Shuffled(2), families, 6, 4))
    assert sorted(map(len, four)) == [1, 1, 2, 2]
    assert sorted(row for batch in four for row in batch) == [0, 1, 2, 3, 4, 5]


def test_epochs_are_in_another_order() -> None:
    sampler = make([10 + row % 7 for row in range(60)], 1, 1)
    first, second = list(sampler), list(sampler)
    assert sorted(map(len, (pack for batch in first for pack in batch))) == sorted(
        map(len, (pack for batch in second for pack in batch))
    )
    assert first != second
    # Packs are made by length, but they do not come in the order of their lengths.
    longest = [max(pack) for batch in first for pack in batch]
    assert longest != sorted(longest)


def test_packing_wastes_little() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 2000).tolist()
    assert len(make(lengths, 1, 1)) < 1.02 * sum(lengths) / CAPACITY + 1


def test_rows_that_fill_a_pack_each_come_twice_where_processes_need_them() -> None:
    shared = on_processes(make([90, 80, 70], 1, 2), 2)
    rows = Counter(row for batches in shared for batch in batches for pack in batch for row in pack)
    assert sorted(rows) == [0, 1, 2]
    assert rows.total() == 4


@pytest.mark.slow
def test_axolotls_own_sampler_loses_rows() -> None:
    """If Axolotl's sampler loses no rows, `WholeEpochSampler` is no longer needed."""
    from axolotl.utils.samplers import MultipackBatchSampler

    lengths = np.random.default_rng(0).integers(5, 60, 45)
    sampler = MultipackBatchSampler(
        Shuffled(45), batch_size=1, batch_max_len=CAPACITY, lengths=lengths, bin_size=0
    )
    sizes = []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        len(sampler)
        sizes.append(sum(len(pack) for batch in sampler for pack in batch))
    assert min(sizes) < 45


@pytest.mark.parametrize("processes", [1, 3])
def test_the_length_is_known_before_the_first_epoch(processes: int) -> None:
    sampler = make([30] * 31, 1, processes)
    assert len(sampler) == (11 if processes == 1 else 12)
    assert sampler.sampler.epoch == 0
