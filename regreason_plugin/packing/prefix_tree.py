"""Packs token sequences that share a prefix into one row, so that it is computed only once.

A row is a prefix tree in depth-first order: first the tokens that its sequences share, then
the branches. The prompts of a conversation's three axes make one row, the conversation followed
by three questions:

    conversation   question 1   question 2   question 3
    0 ........ 9   10 .... 14   15 .... 19   20 .... 24      index in the row
    0 ........ 9   10 .... 14   10 .... 14   10 .... 14      position in its sequence

A token attends to the earlier tokens whose subtrees it belongs to. In depth-first order a
subtree is a range of indices that begins at its root, so one number per token, the ``end`` of
its subtree, determines the attention mask.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

Tokens = tuple[int, ...]
# Tokens in a row of several sequences, at most: its mask grows with the square of its length.
LONGEST_ROW = 8192


@dataclass
class PrefixRow:
    """Sequences that share a prefix, packed into one row of T tokens.

    Attributes:
        tokens: The T tokens; a token that several sequences share occurs once.
        positions: Each token's position in the sequences that it belongs to.
        ends: One past the last index of each token's subtree.
        paths: For each sequence, the indices of its tokens in the row.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    paths: dict[Tokens, list[int]] = field(default_factory=dict)

    @cached_property
    def trunk(self) -> int:
        """The number of tokens before the first branch; T if the row does not branch."""
        length = len(self.tokens)
        return next((index for index, end in enumerate(self.ends) if end < length), length)

    @property
    def branches(self) -> bool:
        """Whether the row branches."""
        return self.trunk < len(self.tokens)

    def shift(self, sequence: Tokens) -> int:
        """The index of a sequence's last token in the row minus its position in the sequence."""
        return self.paths[sequence][-1] + 1 - len(sequence)


def single_rows(sequences: Iterable[Tokens]) -> list[PrefixRow]:
    """One row per sequence."""
    rows = []
    for sequence in sorted(set(sequences)):
        rows.append(PrefixRow())
        _add(rows[-1], (), sequence, 0)
    return rows


def packed_rows(sequences: Iterable[Tokens], linear: float, longest: int) -> list[PrefixRow]:
    """Pack sequences into rows, as far as packing makes them cheaper to compute.

    A packed row computes a shared prefix once, but attention compares every token of the branches
    with every token of the row. With a short prefix and long branches, that costs more than
    packing saves.

    Args:
        sequences: The sequences; their order does not matter.
        linear: The cost of the rest of the model for one token, as the number of tokens that
            attention could compare it with at the same cost (about 6 D for a transformer of
            width D).
        longest: The largest number of tokens in a row that branches.
    """
    rows: list[PrefixRow] = []
    last: Tokens = ()
    # Sorting makes sequences that share a prefix neighbours, in depth-first order.
    for sequence in sorted(set(sequences)):
        shared = shared_prefix(last, sequence)
        row = len(rows[-1].tokens) if rows else 0
        added, length = len(sequence) - shared, len(sequence)
        alone = length * (1 + length / 2 / linear)
        together = (
            # Rows longer than four times a sequence save little more, and need a large mask.
            row + added <= min(longest, 4 * length) and added * (1 + (row + added) / linear) < alone
        )
        # (A sequence that continues an unbranched row costs nothing extra.)
        if not rows or not (shared == row or together):
            rows.append(PrefixRow())
            last, shared = (), 0
        _add(rows[-1], last, sequence, shared)
        last = sequence
    return rows


def joined(rows: Iterable[PrefixRow]) -> PrefixRow:
    """Several rows as one, in which no token attends to a token of another row.

    Args:
        rows: Rows without a common sequence.
    """
    whole = PrefixRow()
    for row in rows:
        start = len(whole.tokens)
        whole.tokens += row.tokens
        whole.positions += row.positions
        whole.ends += [start + end for end in row.ends]
        for sequence, path in row.paths.items():
            whole.paths[sequence] = [start + index for index in path]
    return whole


def _add(row: PrefixRow, last: Tokens, sequence: Tokens, shared: int) -> None:
    """Append a sequence to a row.

    Args:
        row: The row.
        last: The sequence that was added last.
        sequence: The sequence to add.
        shared: Length of the prefix that the two share.
    """
    path = row.paths[last][:shared] if shared else []
    start = len(row.tokens)
    added = range(start, start + len(sequence) - shared)
    row.tokens += sequence[shared:]
    row.positions += range(shared, len(sequence))
    row.ends += [added.stop] * len(added)
    for index in path:
        row.ends[index] = added.stop
    row.paths[sequence] = [*path, *added]


def shared_prefix(one: Tokens, other: Tokens) -> int:
    """The length of the longest prefix that two sequences share."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(index for index in range(length) if one[index] != other[index])
