"""Checks whether a model can read several prompts in one row: packed rows against single rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from regreason_plugin.packing.prefix_tree import PrefixRow, Tokens, single_rows
from regreason_plugin.packing.row_batch import OutOfMemoryError, naming_out_of_memory_batch

# Largest allowed difference between a packed and a plain forward pass: the root mean square,
# over the vocabulary, of the differences in log-probability. Plain passes of different shapes
# differ too, especially in low precision. If the difference exceeds the tolerance, the check
# measures how much plain passes differ and allows `_NOISE_FACTOR` times that.
_TOLERANCE = {torch.float32: 2e-5, torch.float64: 2e-5}
_LOW_PRECISION_TOLERANCE = 5e-3
_NOISE_FACTOR = 5.0

# A function of a batch, some of its sequences, and the length to pad to. It returns each
# sequence's log-probabilities, ``[n, V]`` at the n positions whose next token is scored.
Read = Callable[[Sequence[PrefixRow], set[Tokens], int], dict[Tokens, Tensor]]


class PackingCheck:
    """Chooses the packed rows to check, and remembers which rows need no further check."""

    def __init__(self) -> None:
        self._shift = self._length = 0

    def rows_to_check(self, rows: Sequence[PrefixRow]) -> list[PrefixRow]:
        """The rows to check against single rows before any packed row is trusted.

        A model may refuse the tree-shaped mask, ignore it, or use a token's index in the row
        instead of its position. Such errors are largest where index and position are furthest
        apart, in the longest texts, and in rows with padding.

        Args:
            rows: All rows, the longest first.
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
        """Remember that rows up to this shift and length need no further check."""
        for row in rows:
            self._shift = max(self._shift, *map(row.shift, row.paths))
            self._length = max(self._length, *map(len, row.paths))


def difference(
    rows: Sequence[PrefixRow],
    batches: Iterable[Sequence[PrefixRow]],
    read: Read,
    dtype: torch.dtype,
) -> str | None:
    """Compare the model's output on packed rows with its output on single rows.

    Args:
        rows: Rows of several sequences that share a prefix, the longest first.
        batches: The same rows, in the batches in which they are read.
        read: Runs the model.
        dtype: The dtype that the model runs in.

    Returns:
        The reason why the model cannot read packed rows, for a message; None if it can.

    Raises:
        Exception: Any error that the model raises on single rows, which packing does not cause.
    """
    # From each row, take the sequence with the largest shift, which has the most tokens before
    # it that it must not see, and the first sequence, which has the most tokens after it.
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
        # The same sequences in single rows, padded to the length of the longest packed row.
        padded: dict[Tokens, Tensor] = {}
        with naming_out_of_memory_batch(rows[:1]):
            for row in single_rows(chosen):
                padded |= read([row], chosen, len(rows[0].tokens))
        noise = _distance(padded, plain)
    except OutOfMemoryError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: " + str(error).partition("\n")[0]
    return None if off <= _NOISE_FACTOR * noise else f"log-probabilities are off by {off:.2g}"


def _distance(one: dict[Tokens, Tensor], other: dict[Tokens, Tensor]) -> float:
    """The largest root mean square difference, over the vocabulary, at any position.

    Equal values differ by 0, infinities and pairs of NaN included. A NaN on one side only
    differs by infinity.
    """
    largest = 0.0
    for sequence, ours in one.items():
        theirs = other[sequence].to(ours.device)
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        off = (ours - theirs).masked_fill(same, 0.0).square().mean(dim=-1).sqrt()
        largest = max(largest, float(off.nan_to_num(math.inf).max()))
    return largest
