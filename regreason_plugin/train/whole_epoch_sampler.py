"""Samplers that keep every row in every epoch, for sample packing and for prefix packing.

Axolotl's sampler of packed rows packs them in shuffled order, so the number of packs changes from
epoch to epoch. It guesses the smallest number, cuts every epoch to that number, and drops the last
packs if they do not fill a batch for every process. The samplers here pack by length, which gives
the same number of packs for every order of the rows. They then split packs until these fill whole
batches for all processes. (If every pack holds a single row, no pack can be split, and the first
packs are repeated, as rows are without packing.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from axolotl.utils.samplers import MultipackBatchSampler
from axolotl.utils.samplers.multipack import pack_parallel

Rows = Sequence[int]


class WholeEpochSampler(MultipackBatchSampler):  # type: ignore[misc]  # axolotl is untyped
    """Axolotl's sampler of packed rows, which here loses no rows.

    Args:
        processes: Number of processes, which take the batches in turn.
        families: For each number that the inner sampler gives, the rows that go into the same
            pack, as in `train.families`; by default, each number is a row.
        others: Arguments of Axolotl's sampler. ``lengths`` has one length per family.
    """

    def __init__(
        self,
        *others: Any,
        processes: int = 1,
        families: Sequence[Rows] | None = None,
        **named: Any,
    ) -> None:
        super().__init__(*others, **named)
        self._families = families
        self._packs_in_batch: int = self.batch_size
        self._multiple = self._packs_in_batch * processes
        self._batches_in_epoch: int = (
            len(self._pack(np.arange(len(self.lengths)))) // self._packs_in_batch
        )

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self._batches_in_epoch

    def __iter__(self) -> Iterator[Any]:
        """Batches of the current epoch; a batch is a list of packs, a pack a list of rows."""
        packs = self._pack(np.array(list(self.sampler)))
        for start in range(0, len(packs), self._packs_in_batch):
            yield packs[start : start + self._packs_in_batch]

    def _pack(self, drawn: Any) -> list[list[int]]:
        """Pack the families; the packs come in the order of the first family of each."""
        by_length = np.argsort(-self.lengths[drawn], kind="stable")
        packs = pack_parallel(
            self.lengths[drawn[by_length]],
            bin_capacity=self.batch_max_len,
            group_size=self.group_size,
            bin_size=self.bin_size or self.batch_max_len,
            num_processes=1,
        )
        in_order = sorted([int(by_length[place]) for place in pack] for pack in packs)
        families = [[self._rows(int(drawn[place])) for place in pack] for pack in in_order]
        for extra in range(-len(families) % self._multiple):
            fullest = max(range(len(families)), key=lambda pack: len(families[pack]))
            if len(families[fullest]) == 1:
                fullest = max(range(len(families)), key=lambda pack: sum(map(len, families[pack])))
            halves = _halves(families[fullest])
            if halves:
                families[fullest : fullest + 1] = halves
            else:
                families.append(families[extra])
        return [[row for rows in pack for row in rows] for pack in families]

    def _rows(self, number: int) -> Rows:
        return (number,) if self._families is None else self._families[number]


def _halves(pack: list[Rows]) -> list[list[Rows]]:
    """Two packs instead of one; a family is only split if it is alone. Empty for a single row."""
    if len(pack) > 1:
        return [pack[::2], pack[1::2]]
    (rows,) = pack
    half = (len(rows) + 1) // 2
    return [[rows[:half]], [rows[half:]]] if len(rows) > 1 else []


class FamilySampler(WholeEpochSampler):
    """Batches of padded rows with whole families.

    Args:
        sampler: Gives the numbers of the families in the order of an epoch.
        families: The rows of each family.
        most: Largest number of rows in a batch, and in a family.
        processes: Number of processes, which take the batches in turn.
    """

    def __init__(self, sampler: Any, families: Sequence[Rows], most: int, processes: int) -> None:
        super().__init__(
            sampler,
            batch_size=1,
            batch_max_len=most,
            lengths=np.array([len(rows) for rows in families]),
            bin_size=most,
            # Packing compares a family with every open batch of its group.
            group_size=10_000,
            families=families,
            processes=processes,
        )
        # accelerate gives batches of any size to the processes only if no size is named.
        self.batch_size = None

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of the current epoch, each a list of rows."""
        for (rows,) in super().__iter__():
            yield rows
