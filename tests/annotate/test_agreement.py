"""Agreement among raters, compared with published figures and other libraries."""

from __future__ import annotations

import math
import random
from dataclasses import astuple
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from regreason_plugin.annotate.agreement import (
    Agreement,
    agreement,
    krippendorff_alpha,
    quadratic_kappa,
)
from regreason_plugin.annotate.scores import ScoreTable
from regreason_plugin.core.records import Rated, RaterScore, Turn

NAN = math.nan
# Four observers and twelve units from K. Krippendorff, Computing Krippendorff's Alpha-Reliability
# (2011), sections C and D, where alpha is 0.743 (nominal) and 0.815 (ordinal).
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


def rated(
    scores: dict[tuple[str, str], tuple[int, float]], number: int, axis: str = "on_topic"
) -> Rated:
    return Rated(
        id=f"row {number}",
        dataset="coqa",
        group="g",
        axis=axis,
        conversation=[Turn(role="assistant", content="Yes.")],
        ratings=[
            RaterScore(rater=rater, prompt=prompt, scale=scale, score=score, explanation="e")
            for (rater, prompt), (scale, score) in scores.items()
        ],
    )


def table(rows: list[Rated]) -> ScoreTable:
    filled = ScoreTable()
    for row in rows:
        filled.add(row)
    return filled


def example_rows() -> list[Rated]:
    return [
        rated(
            {
                (f"coder {n}", "p"): (5, value)
                for n, value in enumerate(column)
                if not math.isnan(value)
            },
            unit,
        )
        for unit, column in enumerate(zip(*EXAMPLE, strict=True))
    ]


def test_alpha_is_that_of_krippendorff_s_own_example() -> None:
    found = agreement(table(example_rows()))
    (alpha,) = found.alphas
    assert alpha.coders == 4
    assert alpha.by_axis["on_topic"] == pytest.approx(0.815, abs=5e-4)
    assert alpha.by_axis["all"] == alpha.by_axis["on_topic"]


LABELS = st.lists(st.tuples(*[st.integers(1, 5)] * 2), min_size=1, max_size=40)


@given(LABELS)
def test_kappa_is_scikit_learn_s(pairs: list[tuple[int, int]]) -> None:
    one, two = (np.array(side) for side in zip(*pairs, strict=True))
    found = quadratic_kappa(one, two)
    if len(set(one)) < 2 or len(set(two)) < 2:
        assert found is None
    else:
        expected = cohen_kappa_score(one, two, labels=range(1, 6), weights="quadratic")
        assert found == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(*[st.one_of(st.none(), st.integers(1, 5))] * 3), min_size=1, max_size=20))
def test_alpha_of_whole_labels_is_the_library_s_or_none(
    rows: list[tuple[int | None, ...]],
) -> None:
    scores = np.array([[NAN if value is None else value for value in row] for row in rows])
    found = krippendorff_alpha(scores)
    paired = scores[(~np.isnan(scores)).sum(axis=1) >= 2]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        assert found is None
    else:
        expected = krippendorff.alpha(reliability_data=scores.T, level_of_measurement="ordinal")
        assert found == pytest.approx(expected)


def mixed_rows(number: int = 200, seed: int = 0) -> list[Rated]:
    """Rows of two raters with two scales each; beth scores one label higher than adam."""
    draw = random.Random(seed)
    rows = []
    for n in range(number):
        true = draw.randint(1, 4)
        scores: dict[tuple[str, str], tuple[int, float]] = {}
        for rater, more in (("adam", 0), ("beth", 1)):
            five = min(5, true + more + (draw.random() < 0.2))
            scores[rater, "five"] = (5, five)
            if draw.random() < 0.9:
                scores[rater, "four"] = (4, 1 + round((five - 1) * 3 / 4))
        rows.append(rated(scores, n, ("on_topic", "naturalness")[n % 2]))
    return rows


def test_each_coder_is_compared_with_the_mean_of_the_others() -> None:
    rows = mixed_rows()
    found = agreement(table(rows))
    assert [tuple(one.coder) for one in found.left_out] == [
        (rater, prompt) for rater in ("adam", "beth") for prompt in ("five", "four")
    ]
    for one in found.left_out:
        own, others = [], []
        for row in rows:
            by_coder = {
                (r.rater, r.prompt): 1 + ((r.score or 0) - 1) * 4 / (r.scale - 1)
                for r in row.ratings
            }
            if tuple(one.coder) in by_coder:
                own.append(by_coder.pop(tuple(one.coder)))
                others.append(sum(by_coder.values()) / len(by_coder))
        labels = [[int(value + 0.5 + 1e-9) for value in side] for side in (own, others)]
        differences = [a - b for a, b in zip(own, others, strict=True)]
        assert one.rows == len(own)
        assert one.bias == pytest.approx(sum(differences) / len(own))
        assert one.mae == pytest.approx(sum(map(abs, differences)) / len(own))
        assert one.exact == sum(a == b for a, b in zip(*labels, strict=True)) / len(own)
        assert one.qwk == pytest.approx(
            cohen_kappa_score(*labels, labels=range(1, 6), weights="quadratic")
        )
    adam, beth = found.left_out[0], found.left_out[2]
    assert adam.bias < -0.5 < 0.5 < beth.bias


def test_who_is_compared_with_whom() -> None:
    rows = mixed_rows()
    found = agreement(table(rows))
    assert [(alpha.among, alpha.coders) for alpha in found.alphas] == [
        ("all raters x prompts", 4),
        ("raters, by their means", 2),
        ("prompts of adam", 2),
        ("prompts of beth", 2),
    ]
    assert set(found.alphas[0].by_axis) == {"on_topic", "naturalness", "all"}
    # Each rater's prompts agree better than the two raters do, as beth scores higher than adam.
    whole, raters, adam, beth = (alpha.by_axis["all"] or 0 for alpha in found.alphas)
    assert max(whole, raters) < min(adam, beth)
    own = [
        [
            1 + ((r.score or 0) - 1) * 4 / (r.scale - 1)
            for r in row.ratings
            if (r.rater, r.prompt) == ("adam", prompt)
        ]
        for row in rows
        for prompt in ("five", "four")
    ]
    levels = np.array([int(v[0] + 0.5 + 1e-9) if v else NAN for v in own]).reshape(-1, 2)
    assert adam == pytest.approx(
        krippendorff.alpha(reliability_data=levels.T, level_of_measurement="ordinal")
    )


def test_scales_of_four_and_five_can_agree_in_all_but_the_middle() -> None:
    pairs = [(1, 1), (2, 2), (3, 4), (4, 5)]  # (score on 1 to 4, score on 1 to 5)
    rows = [
        rated({("a", "four"): (4, four), ("a", "five"): (5, five)}, n)
        for n, (four, five) in enumerate(pairs * 3)
    ]
    assert agreement(table(rows)).alphas[0].by_axis["all"] == 1
    rows.append(rated({("a", "four"): (4, 3), ("a", "five"): (5, 3)}, 99))
    assert (agreement(table(rows)).alphas[0].by_axis["all"] or 0) < 1


def test_the_order_of_rows_and_ratings_changes_no_bit() -> None:
    def found(rows: list[Rated]) -> Agreement:
        return agreement(table(rows))

    rows = mixed_rows()
    for seed in range(3):
        mixed = [
            row.model_copy(
                update={"ratings": random.Random(seed).sample(row.ratings, len(row.ratings))}
            )
            for row in random.Random(seed).sample(rows, len(rows))
        ]
        assert found(mixed) == found(rows)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [rated({("a", "p"): (5, 3)}, 0)],
        [rated({("a", "p"): (5, 3), ("b", "p"): (5, 3)}, 0)],
        [rated({("a", "p"): (5, 3)}, 0), rated({("b", "p"): (5, 4)}, 1)],
    ],
)
def test_what_is_not_defined_is_none_and_never_nan(rows: list[Rated]) -> None:
    found = agreement(table(rows))

    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [n for item in value.values() for n in numbers(item)]
        if isinstance(value, list | tuple):
            return [n for item in value for n in numbers(item)]
        return [value] if isinstance(value, float) else []

    assert all(map(math.isfinite, numbers(astuple(found))))
    assert all(alpha.by_axis["all"] is None for alpha in found.alphas)
    assert all(one.qwk is None for one in found.left_out)
