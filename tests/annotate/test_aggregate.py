"""Aggregators, compared with other libraries and tried on simulated raters."""

from __future__ import annotations

import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from regreason_plugin.annotate.aggregate import (
    AGGREGATORS,
    ROWWISE,
    aggregate_rows,
)
from regreason_plugin.annotate.scores import round_half_up
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.records import Merged, Rated, RaterScore, Rating, Turn

SCORES = st.lists(
    st.tuples(st.sampled_from([4, 5]), st.integers(1, 5)).map(lambda p: (p[0], min(p))),
    min_size=1,
    max_size=15,
)


def row(
    scores: list[tuple[int, float]],
    number: int = 0,
    dataset: str = "coqa",
    merged: Merged | None = None,
) -> Rated:
    """A row with one rater per score; the raters' explanations are ``e0``, ``e1``, ..."""
    return Rated(
        id=f"row {number}",
        dataset=dataset,
        group="g",
        axis="on_topic",
        conversation=[Turn(role="assistant", content="Yes.")],
        ratings=[
            RaterScore(rater=f"r{n:02}", prompt="p", scale=scale, score=score, explanation=f"e{n}")
            for n, (scale, score) in enumerate(scores)
        ],
        merged=merged,
    )


def by(name: str, *rows: Rated, minimum: int = 1) -> list[Rating]:
    return list(aggregate_rows(lambda: rows, name, minimum))


def exact(scores: list[tuple[int, int]]) -> list[Fraction]:
    return [1 + Fraction(4 * (score - 1), scale - 1) for scale, score in scores]


def half_up(value: Fraction) -> int:
    return int(value + Fraction(1, 2))  # truncation is the floor here


@given(SCORES)
def test_mean_and_median_against_exact_fractions(scores: list[tuple[int, int]]) -> None:
    values = exact(scores)
    for name, expected in (
        ("mean", sum(values) / len(values)),
        ("median", statistics.median(values)),
    ):
        (rating,) = by(name, row(scores))  # type: ignore[arg-type]
        assert rating.score == pytest.approx(float(expected))
        assert rating.label == half_up(Fraction(expected))


@given(SCORES)
def test_trimmed_mean_is_scipy_s(scores: list[tuple[int, int]]) -> None:
    expected = trim_mean([float(value) for value in exact(scores)], 0.2)
    (rating,) = by("trimmed_mean", row(scores))  # type: ignore[arg-type]
    assert rating.score == pytest.approx(expected)


def test_trimmed_mean_of_few_scores_is_the_mean() -> None:
    assert by("trimmed_mean", row([(5, 1), (5, 1), (5, 1), (5, 5)]))[0].score == 2
    assert by("trimmed_mean", row([(5, 1), (5, 1), (5, 1), (5, 1), (5, 5)]))[0].score == 1


@given(SCORES)
def test_majority_is_a_most_frequent_label_and_none_is_nearer_the_mean(
    scores: list[tuple[int, int]],
) -> None:
    values = exact(scores)
    labels = [half_up(value) for value in values]
    (rating,) = by("majority", row(scores))  # type: ignore[arg-type]
    modes = statistics.multimode(labels)
    assert rating.label in modes
    assert rating.score == rating.label
    distances = {mode: abs(mode - sum(values) / len(values)) for mode in modes}
    nearest = [mode for mode in modes if distances[mode] == min(distances.values())]
    assert rating.label == max(nearest)


@pytest.mark.parametrize(
    ("scores", "label"),
    [
        ([2, 2, 5, 5, 5, 1], 5),
        ([1, 1, 5, 5, 2], 1),  # the mean is 2.8
        ([1, 1, 5, 5, 4], 5),  # 3.2
        ([2, 4], 4),  # both are equally near the mean, so the higher one
    ],
)
def test_majority_by_hand(scores: list[int], label: int) -> None:
    assert by("majority", row([(5, score) for score in scores]))[0].label == label


@given(SCORES, st.randoms(use_true_random=False), st.sampled_from(sorted(ROWWISE)))
def test_the_order_of_ratings_changes_nothing(
    scores: list[tuple[int, int]], shuffler: random.Random, name: str
) -> None:
    given_row = row(scores)  # type: ignore[arg-type]
    mixed = list(given_row.ratings)
    shuffler.shuffle(mixed)
    (one,) = by(name, given_row)
    (other,) = by(name, given_row.model_copy(update={"ratings": mixed}))
    assert (one.score, one.label, one.explanation) == (other.score, other.label, other.explanation)


@given(SCORES)
def test_a_row_keeps_all_its_fields(scores: list[tuple[int, int]]) -> None:
    given_row = row(scores)  # type: ignore[arg-type]
    (rating,) = by("mean", given_row)
    assert Rated(**{k: v for k, v in dict(rating).items() if k in Rated.model_fields}) == given_row


@pytest.mark.parametrize("name", AGGREGATORS)
def test_the_explanation_is_the_merged_one_or_the_nearest(name: str) -> None:
    scores: list[tuple[int, float]] = [(5, 1), (5, 4), (5, 4), (5, 4)]
    assert by(name, row(scores))[0].explanation == "e1"
    merged = Merged(rater="m", explanation="All say so.")
    assert by(name, row(scores, merged=merged))[0].explanation == "All say so."
    for failed in (Merged(rater="m", error="timed out"), Merged(rater="m", explanation=" ")):
        assert by(name, row(scores, merged=failed))[0].explanation == "e1"


@pytest.mark.parametrize("name", AGGREGATORS)
def test_rows_with_too_few_usable_ratings_are_dropped_and_counted(name: str) -> None:
    fine = row([(5, 4), (5, 3)], 0)
    poor = row([(5, 4)], 1)
    spoilt = [
        RaterScore(rater="a", prompt="p", scale=5, error="timed out"),
        RaterScore(rater="b", prompt="p", scale=5, score=3),
        RaterScore(rater="c", prompt="p", scale=5, score=3, explanation="  "),
        RaterScore(rater="d", prompt="p", scale=5, score=9, explanation="Beyond the scale."),
        RaterScore(rater="e", prompt="p", scale=5, score=0, explanation="Below it."),
    ]
    bad = poor.model_copy(update={"id": "row 2", "ratings": [*poor.ratings, *spoilt]})
    none = poor.model_copy(update={"id": "row 3", "ratings": spoilt})
    rows = [fine, poor, bad, none]
    for minimum, kept, reason in (
        (1, ["row 0", "row 1", "row 2"], "no usable rating"),
        (2, ["row 0"], "fewer than 2 usable ratings"),
    ):
        dropped: Counter[str] = Counter()
        found = list(aggregate_rows(lambda: rows, name, minimum, dropped))
        assert [rating.id for rating in found] == kept
        assert dropped == {reason: len(rows) - len(kept)}


def test_row_by_row_aggregators_take_a_row_at_a_time() -> None:
    taken = 0

    def rows() -> Iterator[Rated]:
        nonlocal taken
        for number in range(5):
            taken += 1
            yield row([(5, 3)], number)

    stream = aggregate_rows(rows, "median")
    assert next(stream).id == "row 0"
    assert taken == 1


def test_an_unknown_aggregator_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown aggregator 'medain'; did you mean 'median'"):
        aggregate_rows(lambda: [], "medain")
    monkeypatch.setitem(sys.modules, "crowdkit", None)
    with pytest.raises(UserError, match=r"pip install 'regreason\[annotate\]'"):
        aggregate_rows(lambda: [], "dawid_skene")


# --- Dawid and Skene --------------------------------------------------------------------


def simulate(
    number: int, upside_down: int, careful: int, seed: int
) -> tuple[list[Rated], list[int]]:
    """Rows with their true labels.

    Raters in ``upside_down`` give 6 minus the label; all raters err with probability 0.3.
    """
    draw = random.Random(seed)
    rows, truth = [], []
    for n in range(number):
        label = draw.randint(1, 5)
        scores: list[tuple[int, float]] = []
        for rater in range(upside_down + careful):
            says = 6 - label if rater < upside_down else label
            others = [other for other in range(1, 6) if other != says]
            scores.append((5, says if draw.random() < 0.7 else draw.choice(others)))
        rows.append(row(scores, n))
        truth.append(label)
    return rows, truth


def test_dawid_skene_finds_upside_down_raters_where_mean_and_majority_do_not() -> None:
    rows, truth = simulate(600, upside_down=2, careful=3, seed=1)
    accuracy = {
        name: np.mean([r.label == t for r, t in zip(by(name, *rows), truth, strict=True)])
        for name in AGGREGATORS
    }
    assert accuracy["dawid_skene"] > 0.9
    assert accuracy["dawid_skene"] > max(accuracy[name] for name in ROWWISE) + 0.2


def test_dawid_skene_gives_the_labels_of_an_em_written_out() -> None:
    rows, _ = simulate(150, upside_down=1, careful=4, seed=2)
    votes = np.array([[int(r.score or 0) for r in one.ratings] for one in rows]) - 1
    posterior = np.stack([np.bincount(v, minlength=5) / len(v) for v in votes])
    for _ in range(500):
        prior = posterior.mean(axis=0)
        errors = np.zeros((5, votes.shape[1], 5))  # [true label, coder, label given]
        for said in range(5):
            errors[:, :, said] = posterior.T @ (votes == said)
        errors = np.maximum(errors, 1e-10)
        errors /= errors.sum(axis=2, keepdims=True)
        likelihood = np.log(prior) + np.array(
            [np.log(errors[:, range(len(v)), v]).sum(axis=1) for v in votes]
        )
        posterior = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
    found = by("dawid_skene", *rows)
    agree = np.mean([r.label == p.argmax() + 1 for r, p in zip(found, posterior, strict=True)])
    assert agree > 0.99
    expected = posterior @ np.arange(1, 6)
    assert [r.score for r in found] == pytest.approx(expected.tolist(), abs=0.05)


def test_dawid_skene_does_not_depend_on_the_order_of_rows() -> None:
    rows, _ = simulate(120, upside_down=1, careful=3, seed=3)
    found = {rating.id: rating for rating in by("dawid_skene", *rows)}
    for seed in range(3):
        mixed = [
            one.model_copy(update={"ratings": random.Random(seed).sample(one.ratings, 4)})
            for one in random.Random(seed).sample(rows, len(rows))
        ]
        for rating in by("dawid_skene", *mixed):
            same = found[rating.id]
            # Equal to the last bit, because EM adds in a fixed order.
            assert (rating.score, rating.label) == (same.score, same.label)
            assert rating.explanation == same.explanation


def test_dawid_skene_fits_one_model_per_setting() -> None:
    coqa, _ = simulate(100, upside_down=1, careful=3, seed=4)
    other, _ = simulate(100, upside_down=3, careful=1, seed=5)
    other = [one.model_copy(update={"dataset": "cornell", "id": f"c{one.id}"}) for one in other]
    alone = [(rating.score, rating.label) for rating in by("dawid_skene", *coqa)]
    both = [one for pair in zip(coqa, other, strict=True) for one in pair]
    found = by("dawid_skene", *both)
    mixed = [(rating.score, rating.label) for rating in found if rating.dataset == "coqa"]
    assert mixed == alone


@pytest.mark.parametrize("scores", [[(5, 3)], [(5, 2), (4, 4)], [(5, 4)] * 6])
def test_a_single_row_has_a_label_within_its_scores(scores: list[tuple[int, float]]) -> None:
    (rating,) = by("dawid_skene", row(scores))
    assert rating.label in {round_half_up(float(value)) for value in exact(scores)}  # type: ignore[arg-type]
