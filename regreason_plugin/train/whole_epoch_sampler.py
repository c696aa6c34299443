"""Sample packing that keeps every row in every epoch.

Axolotl's sampler packs the rows in shuffled order, so the number of packs changes from epoch to
epoch. It guesses the smallest number, cuts every epoch to that number, and drops the last packs
if they do not fill a batch for every process. This sampler packs rows by length, which gives the
same number of packs for every order of the rows. It then splits packs until they fill whole
batches for all processes. (If every pack holds a single row, no pack can be split, and the first
packs are repeated, as rows are without packing.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from axolotl.utils.samplers import MultipackBatchSampler
from axolotl.utils.samplers.multipack import pack_parallel


class WholeEpochSampler(MultipackBatchSampler):  # type: ignore[misc]  # axolotl is untyped
    """Axolotl's sampler of packed rows, which here loses no rows.

    Args:
        processes: Number of processes, which take the batches in turn.
        others: Arguments of Axolotl's sampler.
    """

    def __init__(self, *others: Any, processes: int = 1, **named: Any) -> None:
        super().__init__(*others, **named)
        self._multiple = self.batch_size * processes
        self._batches_in_epoch: int = (
            len(self._pack(np.arange(len(self.lengths)))) // self.batch_size
        )

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self._batches_in_epoch

    def __iter__(self) -> Iterator[list[list[int]]]:
        """Batches of the current epoch; a batch is a list of packs, a pack a list of rows."""
        packs = self._pack(np.array(list(self.sampler)))
        for start in range(0, len(packs), self.batch_size):
            yield packs[start : start + self.batch_size]

    def _pack(self, rows: Any) -> list[list[int]]:
        """Pack the rows; the packs come in the order of their first rows."""
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
