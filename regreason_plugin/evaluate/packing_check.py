"""Whether a model can read several prompts in one row: packed rows against plain ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from regreason_plugin.evaluate.prefix_tree import PrefixRow, Tokens, single_rows
from regreason_plugin.evaluate.row_batch import OutOfMemoryError, noticing_memory

# By how much a packed pass may differ from a plain one before it counts as wrong: root mean
# square over the vocabulary, of log-probabilities. Plain passes of different shapes differ
# too, more so in low precision: where the difference is larger, theirs is measured, and so
# many times as much is allowed.
_TOLERANCE = {torch.float32: 2e-5, torch.float64: 2e-5}
_LOW_PRECISION_TOLERANCE = 5e-3
_NOISE_FACTOR = 5.0

# Of a batch, some of its sequences, and the length to pad to: the log-probabilities of each,
# ``[n, V]`` at the n positions that are asked for.
Read = Callable[[Sequence[PrefixRow], set[Tokens], int], dict[Tokens, Tensor]]


class PackingCheck:
    """Remembers what was found right, so that nothing is held against plain rows twice."""

    def __init__(self) -> None:
        self._shift = self._length = 0

    def doubtful(self, rows: Sequence[PrefixRow]) -> list[PrefixRow]:
        """The rows to hold against plain ones before any is trusted.

        A model may not take such a mask, or take it and not heed it, or go by places
        instead of positions: that shows most where the two are furthest apart, in the
        longest texts, and behind padding.

        Args:
            rows: All of them, the longest first.
        """
        shared = [row for row in rows if len(row.paths) > 1]
        shifts = [max(map(row.shift, row.paths)) for row in shared]
        lengths = [max(map(len, row.paths)) for row in shared]
        if not shared or (max(shifts) <= self._shift and max(lengths) <= self._length):
            return []
        shortest = len(shared) - 1
        chosen = {shifts.index(max(shifts)), lengths.index(max(lengths)), shortest}
        return [shared[number] for number in sorted(chosen)]

    def trust(self, rows: Iterable[PrefixRow]) -> None:
        """Rows like these were found right."""
        for row in rows:
            self._shift = max(self._shift, *map(row.shift, row.paths))
            self._length = max(self._length, *map(len, row.paths))


def difference(
    rows: Sequence[PrefixRow],
    batches: Iterable[Sequence[PrefixRow]],
    read: Read,
    dtype: torch.dtype,
) -> str | None:
    """How packed rows differ from their sequences alone.

    Args:
        rows: Which share a prefix, the longest first.
        batches: The same, as they are read.
        read: Runs the model.
        dtype: The precision that it runs in.

    Returns:
        What to tell the user; None if they do not differ.

    Raises:
        Exception: Whatever the model raises on plain rows: packing is not to blame.
    """
    # Of each row the sequence that is furthest from its position, which has most before it
    # that it must not see, and the first, which has most after it.
    chosen = {max(row.paths, key=row.shift) for row in rows}
    chosen |= {next(iter(row.paths)) for row in rows}
    plain: dict[Tokens, Tensor] = {}
    for row in single_rows(chosen):
        plain |= read([row], chosen, 0)
    try:
        packed: dict[Tokens, Tensor] = {}
        for batch in batches:
            packed |= read(batch, chosen, 0)
        off = _distance(packed, plain)
        if off <= _TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE):
            return None
        # The same sequences in as long rows, with nothing to confuse.
        other: dict[Tokens, Tensor] = {}
        with noticing_memory(rows[:1]):
            for row in single_rows(chosen):
                other |= read([row], chosen, len(rows[0].tokens))
        noise = _distance(other, plain)
    except OutOfMemoryError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: " + str(error).partition("\n")[0]
    return None if off <= _NOISE_FACTOR * noise else f"log-probabilities are off by {off:.2g}"


def _distance(one: dict[Tokens, Tensor], other: dict[Tokens, Tensor]) -> float:
    """The largest root mean square, over the vocabulary, of the differences at a position.

    What is equal, infinities too, differs by 0; a NaN on one side only by infinity.
    """
    largest = 0.0
    for sequence, ours in one.items():
        theirs = other[sequence].to(ours.device)
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        off = (ours - theirs).masked_fill(same, 0.0).square().mean(dim=-1).sqrt()
        largest = max(largest, float(off.nan_to_num(math.inf).max()))
    return largest
