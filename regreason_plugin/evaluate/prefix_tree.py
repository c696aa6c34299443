"""What shares a prefix is computed once: token sequences as rows that branch.

A row is a prefix tree in depth-first order: the tokens that its sequences share, then
where they part. The three axes of a conversation make one row of the conversation and
three questions:

    conversation   question 1   question 2   question 3
    0 ........ 9   10 .... 14   15 .... 19   20 .... 24      place in the row
    0 ........ 9   10 .... 14   10 .... 14   10 .... 14      position in its sequence

A token sees those before it in the row in whose subtree it is. In depth-first order a
subtree is a range of places, so one number a token (``end``) says all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

Tokens = tuple[int, ...]


@dataclass
class PrefixRow:
    """Sequences that share a prefix, as one sequence of T tokens.

    Attributes:
        tokens: Every shared one once.
        positions: Each one's position in its own sequences.
        ends: One past the last place of each one's subtree.
        paths: Of each sequence, the places of its tokens.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    paths: dict[Tokens, list[int]] = field(default_factory=dict)

    @cached_property
    def trunk(self) -> int:
        """How many tokens come before the first parting; all of them if there is none."""
        whole = len(self.tokens)
        return next((place for place, end in enumerate(self.ends) if end < whole), whole)

    @property
    def branches(self) -> bool:
        """Whether two of its sequences part."""
        return self.trunk < len(self.tokens)

    def shift(self, sequence: Tokens) -> int:
        """How much further into the row than into the sequence its last token is."""
        return self.paths[sequence][-1] + 1 - len(sequence)


def single_rows(sequences: Iterable[Tokens]) -> list[PrefixRow]:
    """A row for each sequence."""
    rows = []
    for sequence in sorted(set(sequences)):
        rows.append(PrefixRow())
        _add(rows[-1], (), sequence, 0)
    return rows


def packed_rows(sequences: Iterable[Tokens], linear: float, longest: int) -> list[PrefixRow]:
    """Rows of sequences that are cheaper together than apart.

    Together, a shared prefix is computed once, but every token of the ends is held
    against every token of the row: with a short prefix and long ends that costs more
    than it saves.

    Args:
        sequences: In any order; the same ones give the same rows.
        linear: Against how many tokens a token is held for what the rest of the model
            costs on it (about 6 D for a transformer of width D).
        longest: No row that branches gets longer.
    """
    rows: list[PrefixRow] = []
    last: Tokens = ()
    # Sorted, sequences that share a prefix are neighbours, in depth-first order.
    for sequence in sorted(set(sequences)):
        shared = shared_prefix(last, sequence)
        row = len(rows[-1].tokens) if rows else 0
        added, length = len(sequence) - shared, len(sequence)
        alone = length * (1 + length / 2 / linear)
        together = (
            # Beyond four times a sequence hardly more is saved, and the mask is a square.
            row + added <= min(longest, 4 * length) and added * (1 + (row + added) / linear) < alone
        )
        # (What goes on where a row without branches ends costs nothing extra.)
        if not rows or not (shared == row or together):
            rows.append(PrefixRow())
            last, shared = (), 0
        _add(rows[-1], last, sequence, shared)
        last = sequence
    return rows


def _add(row: PrefixRow, last: Tokens, sequence: Tokens, shared: int) -> None:
    """Put a sequence behind the one that was added last, with which it shares a prefix."""
    path = row.paths[last][:shared] if shared else []
    start = len(row.tokens)
    added = range(start, start + len(sequence) - shared)
    row.tokens += sequence[shared:]
    row.positions += range(shared, len(sequence))
    row.ends += [added.stop] * len(added)
    for place in path:
        row.ends[place] = added.stop
    row.paths[sequence] = [*path, *added]


def shared_prefix(one: Tokens, other: Tokens) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(place for place in range(length) if one[place] != other[place])
