"""Which train rows prefix packing draws into the same batch."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regreason_plugin.core.errors import UserError
from regreason_plugin.train.families import TokenRow, find_families, token_rows
from regreason_plugin.train.label_span import LabelPosition

pytestmark = pytest.mark.integration

IGNORE = -100


def row(prompt: str, target: str = "x", *, owner: str = "", group: str = "g") -> TokenRow:
    """A row whose tokens are the characters of its texts."""
    ids = np.array([ord(one) for one in prompt + target], np.int32)
    return TokenRow(ids, len(prompt), ("hh_chosen", owner or prompt), group)


def rows_of(*rows: TokenRow, **limits: int) -> list[tuple[int, ...]]:
    return find_families(rows, **limits).rows


def test_the_rows_of_a_conversation_are_a_family_whatever_they_share() -> None:
    rows = [
        row("hi: is it long enough?", owner="a"),
        row("something else", owner="b"),
        row("hi: does it stay on topic?", owner="a"),
    ]
    assert rows_of(*rows) == [(2, 0), (1,)]


def test_rows_of_a_group_are_a_family_if_they_share_half_a_prompt() -> None:
    story = "a long story about a cat. "
    rows = [row(story + "who?"), row(story + "where, and with whom?"), row("a film. why?")]
    assert rows_of(*rows) == [(1, 0), (2,)]
    # 10 of 20 tokens are half of the shorter prompt; 9 of 20 are less.
    assert len(rows_of(row("a" * 10 + "b" * 10), row("a" * 10 + "c" * 30))) == 1
    assert len(rows_of(row("a" * 9 + "b" * 11), row("a" * 9 + "c" * 30))) == 2


def test_rows_of_two_groups_are_never_a_family() -> None:
    assert len(rows_of(row("the same", group="one"), row("the same", group="two"))) == 2


def test_conversations_that_begin_alike_join_the_rows_of_both() -> None:
    """The chosen and the rejected answer to a request, with two axes each."""
    asked = "a request that both answers share, with a history: "
    texts = [asked + "yes. A?", asked + "no. A?", asked + "yes. B?", asked + "no. B?"]
    rows = [row(text, owner=text[:-3]) for text in texts]
    ((only),) = rows_of(*rows)
    # Neighbours share the most.
    assert only == (1, 3, 0, 2)


def test_a_family_is_cut_where_a_batch_is_full() -> None:
    rows = [row(f"a story. {question}?") for question in "abcde"]
    assert rows_of(*rows, most_rows=2) == [(0, 1), (2, 3), (4,)]
    # 12 tokens, then 3 more for each further row.
    assert rows_of(*rows, most_tokens=18) == [(0, 1, 2), (3, 4)]
    # A row that is longer than the limit is alone.
    assert rows_of(*rows, most_tokens=5) == [(0,), (1,), (2,), (3,), (4,)]


def test_distinct_tokens_are_those_of_a_tree() -> None:
    families = find_families([row("aaaab"), row("aaaac"), row("aaaac", "xy")])
    ((distinct),) = (family.distinct for family in families.families)
    assert distinct == len("aaaabx") + len("cx") + len("y")
    assert families.shared == 4
    assert families.own_tokens.tolist() == [distinct - 4]
    assert families.tokens(batches=3) == distinct - 4 + 3 * 4


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.text("ab", min_size=1, max_size=8), st.integers(0, 3)), min_size=1),
    st.integers(1, 5),
)
def test_every_row_is_in_exactly_one_family(texts: list[tuple[str, int]], most: int) -> None:
    rows = [row(text, owner=str(n // 2), group=str(group)) for n, (text, group) in enumerate(texts)]
    families = find_families(rows, most_rows=most)
    assert Counter(n for family in families.rows for n in family) == Counter(range(len(rows)))
    assert all(len(family) <= most for family in families.rows)
    for family in families.families:
        whole = {rows[n].ids.tobytes() for n in family.rows}
        prefixes = {bytes(one[: 4 * end]) for one in whole for end in range(1, len(one) // 4 + 1)}
        assert family.distinct == len(prefixes)


def test_arms_have_the_same_families() -> None:
    prompts = [f"conversation {n // 3}, axis {n % 3}" for n in range(12)]
    arms = (
        [row(prompt, target, owner=prompt[:14], group=prompt[:14]) for prompt in prompts]
        for target in ("3", "3\n\nbecause it is so", "9\n\nis so it because")
    )
    one, other, third = (rows_of(*arm, most_rows=6) for arm in arms)
    assert one == other == third
    assert len(one) == 4


class Tokenized:
    """A tokenized dataset of two columns."""

    def __init__(self, **columns: list[list[int]]) -> None:
        self.columns = columns

    def select_columns(self, names: list[str]) -> Tokenized:
        return Tokenized(**{name: self.columns[name] for name in names})

    def iter(self, size: int) -> Any:
        yield self.columns


def test_rows_in_another_order_than_the_file_are_refused() -> None:
    place = LabelPosition(((7,), (8,)), first=True)
    ids = [[1, 2, 7, 9], [1, 2, 3, 8, 9], [4, 8, 9]]
    labels = [[IGNORE, IGNORE, 7, 9], [IGNORE] * 3 + [8, 9], [IGNORE, 8, 9]]
    tokenized = Tokenized(input_ids=ids, labels=labels, attention_mask=[])

    def of_file(*numbers: int) -> list[Any]:
        return [
            SimpleNamespace(id=f"row-{n}", dataset="coqa", group=f"g{n}", label=number)
            for n, number in enumerate(numbers)
        ]

    found = token_rows(tokenized, of_file(1, 2, 2), place)
    assert [(one.prompt, one.owner, one.group) for one in found] == [
        (2, ("coqa", "row-0"), "g0"),
        (3, ("coqa", "row-1"), "g1"),
        (1, ("coqa", "row-2"), "g2"),
    ]
    with pytest.raises(UserError, match="row 2 does not have the label of row 'row-2'"):
        token_rows(tokenized, of_file(1, 2, 1), place)
