"""Pairing of predictions, document by document."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regreason_plugin.comparison.comparability import check_same_answers
from regreason_plugin.core.errors import UserError
from regreason_plugin.metrics.answers import Answers

NAMES = ("old", "new")


def _answers() -> Answers:
    return Answers(
        task="regreason_coqa_accuracy",
        source=Path("samples.jsonl"),
        ids=["a", "b", "c"],
        hashes=["1", "2", "3"],
        groups=["g", "g", "h"],
        labels=np.array([1, 2, 5]),
        log_probabilities=np.zeros((3, 5)),
        probes={},
        layers={},
    )


def test_the_same_documents_pair_whatever_was_answered() -> None:
    other = replace(_answers(), log_probabilities=np.ones((3, 5)))
    check_same_answers(_answers(), other, NAMES)
    with pytest.raises(UserError):
        check_same_answers(_answers(), replace(other, ids=["a", "b", "d"]), NAMES)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hashes": ["1", "x", "y"]}, "content or the prompt of 2 of 3 documents, the first 'b'"),
        ({"groups": ["g", "g", "g"]}, "the group of 1 of 3 documents, the first 'c'"),
        ({"labels": np.array([1, 2, 4]), "hashes": ["1", "2", "x"]}, "the label of 1 of 3"),
        ({"ids": ["a", "b", "d"]}, "'c' is in 'old' only"),
        ({"ids": ["a", "aa", "b", "c"]}, "'aa' is in 'new' only"),
    ],
)
def test_what_differs_is_named(change: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=says) as caught:
        check_same_answers(_answers(), replace(_answers(), **change), NAMES)
    assert "'new'" in str(caught.value)
    assert "samples.jsonl" in str(caught.value)
