"""Packed rows: no token is lost or repeated, and each token sees exactly its own prefix."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from regreason_plugin.packing.prefix_tree import (
    PrefixRow,
    Tokens,
    packed_rows,
    shared_prefix,
    single_rows,
)

# Only three different tokens, so that prefixes are shared often and at every depth.
sequences = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, max_size=12
)
limits = st.tuples(st.floats(1, 1000), st.integers(1, 60))


def check(rows: list[PrefixRow], given: list[Tokens]) -> None:
    found = [sequence for row in rows for sequence in row.paths]
    assert sorted(found) == sorted(set(given))
    for row in rows:
        prefixes = {one[: n + 1] for one in row.paths for n in range(len(one))}
        assert len(row.tokens) == len(prefixes)
        for sequence, path in row.paths.items():
            assert row.shift(sequence) == path[-1] - row.positions[path[-1]]
            assert tuple(row.tokens[place] for place in path) == sequence
            assert [row.positions[place] for place in path] == list(range(len(sequence)))
            # By the rule of the mask, the last token sees exactly its own path.
            seen = [key for key in range(path[-1] + 1) if path[-1] < row.ends[key]]
            assert seen == path


@given(sequences, limits)
def test_packed_rows_hold_every_sequence_and_its_prefix(
    given: list[Tokens], limits: tuple[float, int]
) -> None:
    check(packed_rows(given, *limits), given)


@given(sequences)
def test_single_rows_hold_a_sequence_each(given: list[Tokens]) -> None:
    rows = single_rows(given)
    check(rows, given)
    assert all(tuple(row.tokens) == sequence for row in rows for sequence in row.paths)
    assert len(rows) == len(set(given))


@given(sequences, limits, st.randoms())
def test_the_order_in_which_they_are_asked_does_not_matter(
    given: list[Tokens], limits: tuple[float, int], random: object
) -> None:
    shuffled = list(given)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert packed_rows(given, *limits) == packed_rows(shuffled, *limits)


@given(sequences, st.integers(1, 60))
@example([(0, 0), (0, 1), (0, 1, 0)], 3)  # the last sequence continues where a branch ends
def test_no_packed_row_is_too_long(given: list[Tokens], longest: int) -> None:
    for row in packed_rows(given, linear=1e9, longest=longest):
        longest_sequence = max(map(len, row.paths))
        assert len(row.tokens) <= min(longest, 4 * longest_sequence) or not row.branches


def test_three_questions_share_their_conversation() -> None:
    conversation = tuple(range(100))
    asked = [(*conversation, 200, 1), (*conversation, 300, 1), (*conversation, 300, 2)]
    (row,) = packed_rows(asked, linear=3072, longest=4096)
    assert row.trunk == 100
    assert row.branches
    assert len(row.tokens) == 100 + 2 + 2 + 1


def test_what_costs_more_together_stays_apart() -> None:
    # One shared token, and branches so long that their attention costs more than packing saves.
    long = [(0, number, *range(500)) for number in range(1, 5)]
    assert len(packed_rows(long, linear=100, longest=10_000)) == 4
    assert len(packed_rows(long, linear=1e9, longest=10_000)) == 1


def test_shared_prefix() -> None:
    assert shared_prefix((1, 2, 3), (1, 2, 4, 5)) == 2
    assert shared_prefix((1, 2), (1, 2, 4)) == 2
    assert shared_prefix((1,), (2,)) == 0
    assert shared_prefix((), (2,)) == 0
