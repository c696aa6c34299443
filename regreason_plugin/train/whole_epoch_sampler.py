"""Sample packing that keeps every row in every epoch.

Axolotl's sampler packs the rows as they are shuffled, so the number of packs changes from
epoch to epoch; it guesses the smallest number and cuts every epoch to it, drops the last packs
that do not fill a batch, and those that are not enough for all processes. Here rows are packed
by length, which gives the same number of packs in whatever order they come, and packs are
split until batches and processes come out even. (Where every row fills a pack of its own there
is nothing to split, and the first ones come twice, as they do without packing.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from axolotl.utils.samplers import MultipackBatchSampler
from axolotl.utils.samplers.multipack import pack_parallel


class WholeEpochSampler(MultipackBatchSampler):  # type: ignore[misc]  # axolotl is untyped
    """Axolotl's sampler of packed rows, none of them lost.

    Args:
        processes: How many share the batches, one after the other.
        others: As of Axolotl's sampler.
    """

    def __init__(self, *others: Any, processes: int = 1, **named: Any) -> None:
        super().__init__(*others, **named)
        self._multiple = self.batch_size * processes
        self._batches_in_epoch: int = (
            len(self._pack(np.arange(len(self.lengths)))) // self.batch_size
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._batches_in_epoch

    def __iter__(self) -> Iterator[list[list[int]]]:
        """The batches of the sampler's epoch; a batch is a list of packs of rows."""
        packs = self._pack(np.array(list(self.sampler)))
        for start in range(0, len(packs), self.batch_size):
            yield packs[start : start + self.batch_size]

    def _pack(self, rows: Any) -> list[list[int]]:
        """Packs of rows, in the order in which their first rows come."""
        by_length = np.argsort(-self.lengths[rows], kind="stable")
        packs = pack_parallel(
            self.lengths[rows[by_length]],
            bin_capacity=self.batch_max_len,
            group_size=self.group_size,
            bin_size=self.bin_size or self.batch_max_len,
            num_processes=1,
        )
        places = sorted([int(by_length[place]) for place in pack] for pack in packs)
        for extra in range(-len(places) % self._multiple):
            fullest = max(range(len(places)), key=lambda pack: len(places[pack]))
            pack = places[fullest]
            if len(pack) > 1:
                places[fullest : fullest + 1] = [pack[::2], pack[1::2]]
            else:
                places.append(places[extra])
        return [[int(rows[place]) for place in pack] for pack in places]
