"""Losses of label tokens and other tokens, compared with a plain loop over rows."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.core.errors import UserError
from regreason_plugin.train.label_loss import count_tokens, step_loss, token_sums
from regreason_plugin.train.label_span import LabelPosition, locate_labels

IGNORE = -100
# One label is a prefix of another, and one is a suffix of another.
LABELS = ((1, 2, 3), (2, 3), (1, 2), (5,), (3,))
places = st.builds(
    lambda first, after: LabelPosition(LABELS, first, 0 if first else after),
    st.booleans(),
    st.integers(0, 2),
)
# Lengths of a row's prompt and of its target after the label.
shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=6)


def rows_of(
    place: LabelPosition, shapes: list[tuple[int, int]]
) -> list[tuple[list[int], list[bool]]]:
    """Rows of ``labels``; tokens above 10 belong to no label."""
    rows = []
    for number, (prompt, more) in enumerate(shapes):
        label = list(place.labels[(number + more) % len(place.labels)])
        other = [11 + number] * more
        end = [99] * (1 if place.first else place.after)
        target = label + other + end if place.first else other + label + end
        rows.append(([IGNORE] * prompt + target, [False] * prompt + [one < 10 for one in target]))
    return rows


def padded(rows: list[list[Any]], value: Any, left: bool) -> torch.Tensor:
    longest = max(map(len, rows))
    pads = [[value] * (longest - len(row)) for row in rows]
    return torch.tensor([p + r if left else r + p for r, p in zip(rows, pads, strict=True)])


@given(places, shapes, st.booleans())
def test_the_label_is_found_in_padded_and_in_packed_rows(
    place: LabelPosition, shapes: list[tuple[int, int]], left: bool
) -> None:
    rows = rows_of(place, shapes)
    expected = padded([mask for _, mask in rows], False, left)
    labels = padded([labels for labels, _ in rows], IGNORE, left)
    assert torch.equal(place.mask(labels), expected)
    packed = torch.tensor([[one for labels, _ in rows for one in labels]])
    whole = torch.tensor([[one for _, mask in rows for one in mask]])
    assert torch.equal(place.mask(packed), whole)
    other = (packed != IGNORE) & ~whole
    assert count_tokens(packed, place).tolist() == [int(whole.sum()), int(other.sum())]


def by_hand(
    logits: np.ndarray[Any, Any],
    labels: list[list[int]],
    masks: list[list[bool]],
    share: float | None,
    smoothing: float = 0.0,
) -> float:
    """The loss of a step, token by token, in float64."""
    losses: dict[bool, list[float]] = {True: [], False: []}
    for row, (ids, mask) in enumerate(zip(labels, masks, strict=True)):
        for position in range(1, len(ids)):
            if ids[position] != IGNORE:
                scores = logits[row, position - 1].astype(np.float64)
                log_norm = scores.max() + np.log(np.exp(scores - scores.max()).sum())
                own, all_tokens = log_norm - scores[ids[position]], log_norm - scores.mean()
                losses[mask[position]].append((1 - smoothing) * own + smoothing * all_tokens)
    if share is None:
        return float(np.mean([*losses[True], *losses[False]]))
    return share * float(np.mean(losses[True])) + (1 - share) * float(np.mean(losses[False]))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0, None])
@pytest.mark.parametrize("place", [LabelPosition(LABELS, True), LabelPosition(LABELS, False, 1)])
def test_a_step_in_parts_is_the_step_at_once(
    place: LabelPosition, share: float | None, smoothing: float
) -> None:
    rng = random.Random(0)
    rows = rows_of(place, [(rng.randrange(1, 5), rng.randrange(0, 9)) for _ in range(8)])
    labels = padded([labels for labels, _ in rows], IGNORE, False)
    masks = padded([mask for _, mask in rows], False, False)
    torch.manual_seed(0)
    logits = torch.randn(*labels.shape, 120, requires_grad=True)
    numbers = logits.detach().numpy()
    expected = by_hand(numbers, labels.tolist(), masks.tolist(), share, smoothing)

    counts = count_tokens(labels, place)
    whole = step_loss(token_sums(logits, labels, place, smoothing), counts, share)
    (gradient,) = torch.autograd.grad(whole, logits)
    assert float(whole) == pytest.approx(expected, rel=1e-5)
    for sizes in ([1] * 8, [2] * 4, [3, 5], [7, 1]):
        parts = list(zip(logits.split(sizes), labels.split(sizes), strict=True))
        loss = sum(step_loss(token_sums(*part, place, smoothing), counts, share) for part in parts)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        (found,) = torch.autograd.grad(loss, logits)  # type: ignore[arg-type]
        assert torch.allclose(found, gradient, atol=1e-7)


def test_a_mean_over_all_is_the_share_of_the_tokens() -> None:
    """If r is the label's part of the target tokens, the loss is the ordinary one."""
    place = LabelPosition(((1,),), True)
    rows = rows_of(place, [(2, 4), (3, 0), (1, 7)])
    labels = padded([labels for labels, _ in rows], IGNORE, False)
    torch.manual_seed(0)
    logits = torch.randn(*labels.shape, 120)
    label, other = count_tokens(labels, place).tolist()
    share = label / (label + other)
    found = step_loss(token_sums(logits, labels, place), torch.tensor([label, other]), share)
    ordinary = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE
    )
    assert float(found) == pytest.approx(float(ordinary), rel=1e-6)


def test_smoothing_is_transformers() -> None:
    from transformers.trainer_pt_utils import LabelSmoother

    place = LabelPosition(((1,),), True)
    labels = padded([labels for labels, _ in rows_of(place, [(2, 4), (3, 1)])], IGNORE, False)
    torch.manual_seed(0)
    logits = torch.randn(*labels.shape, 120)
    sums = token_sums(logits, labels, place, smoothing=0.2)
    expected = LabelSmoother(epsilon=0.2)({"logits": logits}, labels, shift_labels=True)
    assert float((sums.label + sums.other) / sums.counts.sum()) == pytest.approx(float(expected))


def test_without_other_tokens_there_is_no_division_by_zero() -> None:
    place = LabelPosition(((1,),), True)
    labels = torch.tensor([[IGNORE, 1], [IGNORE, 1]])
    loss = step_loss(
        token_sums(torch.zeros(2, 2, 7), labels, place), count_tokens(labels, place), 0.5
    )
    assert float(loss) == pytest.approx(0.5 * math.log(7))


class Words:
    """A tokenizer of single characters, with two tokens that end a text."""

    unk_token_id = None
    all_special_ids = (1, 2)
    all_special_tokens = ("<end>", "<turn>")
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [*map(ord, text)]

    def decode(self, ids: Any, **_: bool) -> str:
        names = {1: "<end>", 2: "<turn>"}
        return "".join(names.get(one, chr(one)) for one in ([ids] if isinstance(ids, int) else ids))


def ids(text: str, *end: int) -> list[int]:
    return [*map(ord, text), *end]


@pytest.mark.parametrize(
    ("target", "order", "label", "after"),
    [
        (ids(" 3\nIt is.", 1), "label_first", " 3", 0),
        (ids("3\n45 of 5", 2), "label_first", "3", 0),
        (ids(" It is 5.\nRating: 3", 1), "explanation_first", " 3", 1),
        (ids("Rating: 3", 2, 10, 1), "explanation_first", " 3", 3),
        (ids("It is.\n3", 1), "explanation_first", "3", 1),
    ],
)
def test_the_place_is_read_off_a_row(target: list[int], order: Any, label: str, after: int) -> None:
    found = locate_labels([[IGNORE, *target]], Counter({3: 1}), Words(), order)
    first = order == "label_first"
    assert found == LabelPosition((tuple(map(ord, label)),), first, after, numbers=(3,))


def test_every_row_is_held_against_the_place() -> None:
    rows = [[IGNORE, *ids(f" {label}\nwhy {label}", 1)] for label in (1, 2, 2, 5)]
    expected = Counter({1: 1, 2: 2, 5: 1})
    place = locate_labels(rows, expected, Words(), "label_first")
    assert place.labels == ((32, ord("1")), (32, ord("2")), (32, ord("5")))
    assert place.numbers == (1, 2, 5)
    for wrong, says in (
        (
            [*rows, [IGNORE, *ids(" 3\nw"), IGNORE, *ids("hy", 1)]],
            "row 4 is empty or not contiguous",
        ),
        ([*rows, [IGNORE, IGNORE]], "row 4 is empty or not contiguous"),
        ([*rows, rows[0]], "tokenized rows have the labels 2 x 1, 2 x 2, 1 x 5, but"),
        (
            [[IGNORE, *ids(" good\nwhy", 1)]],
            "row 0 has no label where order label_first expects",
        ),
    ):
        with pytest.raises(UserError, match=says):
            locate_labels(wrong, expected, Words(), "label_first")
    two_ends = [[IGNORE, *ids("Rating: 3", 1)], [IGNORE, *ids("Rating: 4", 2, 1)]]
    with pytest.raises(UserError, match="row 1 has no label where order explanation_first"):
        locate_labels(two_ends, Counter({3: 1, 4: 1}), Words(), "explanation_first")


def choices(texts: list[str], written: list[str] | None = None, **others: Any) -> list[str]:
    """The tokens that decide between labels with these texts, one letter per token."""
    rows = [[IGNORE, *ids(f"{text}\nwhy", 1)] for text in written or texts]
    names = [text.strip() for text in texts]
    expected = Counter(names.index(text.strip()) + 1 for text in written or texts)
    place = locate_labels(rows, expected, Words(), "label_first", names, **others)
    return [chr(token) for token in place.choices]


def test_one_token_decides_where_the_labels_differ_in_their_last_only() -> None:
    # They are in the order of the labels, which breaks ties in scoring.
    assert choices([" b", " a", " c"]) == ["b", "a", "c"]
    assert choices([" is low", " is mow"]) == []
    assert choices([" level a", " level c", " level b"]) == ["a", "c", "b"]
    # An end marker, a longer label, a label with two tokenizations, a label that no row has.
    assert choices([" a.", " b."]) == []
    assert choices([" a", " bc"]) == []
    assert choices([" a", " b"], [" a", " b", "a"]) == []
    assert choices([" a", " b", " c"], [" a", " b"]) == []
    # Scores normalised by characters differ if labels differ in length.
    assert choices([" a", " b"], normalise="characters") == ["a", "b"]


def test_scores_by_character_of_labels_of_unequal_length_are_not_decided_by_one_token() -> None:
    class Pieces(Words):
        def decode(self, ids: Any, **_: bool) -> str:
            found = [ids] if isinstance(ids, int) else ids
            return "".join(
                {500: " no", 501: " yes"}.get(one, Words.decode(self, one)) for one in found
            )

    rows = [[IGNORE, 500, 1], [IGNORE, 501, 1]]
    found = [
        locate_labels(
            rows, Counter({1: 1, 2: 1}), Pieces(), "label_first", ("no", "yes"), normalise
        ).choices
        for normalise in ("none", "characters")
    ]
    assert found == [(500, 501), ()]
