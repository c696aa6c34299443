"""Requests for label scores as lm-eval makes them, and their scores."""

from __future__ import annotations

import random
from typing import Any

from helpers.model_zoo import VOCABULARY
from lm_eval.models.huggingface import HFLM


def requests(seed: int = 0) -> list[Any]:
    """Requests for conversations with three questions and five labels each, and for contexts that
    share nothing. Some labels have several tokens; lengths are near and above the short window."""
    rng = random.Random(seed)

    def ids(count: int) -> list[int]:
        return [rng.randrange(5, VOCABULARY) for _ in range(count)]

    asked = []
    for conversation in range(5):
        start = [1, *ids(rng.randrange(10, 60))]
        for question in range(3):
            context = start + ids(rng.randrange(3, 12))
            labels = [[10 + label] for label in range(5)] + [[10, 20 + question, 30]]
            asked += [
                ((f"{conversation} {question}", str(label)), context, label) for label in labels
            ]
    asked += [((f"alone {n}", ""), ids(rng.randrange(1, 30)), ids(2)) for n in range(3)]
    rng.shuffle(asked)
    return asked


def score(lm: HFLM, asked: list[Any]) -> list[Any]:
    return lm._loglikelihood_tokens(asked, disable_tqdm=True)


def labels(asked: list[Any], expected: list[Any], found: list[Any]) -> Any:
    """The scores of each question's labels of one token: hf's and ours."""
    by_question: dict[str, list[tuple[float, float]]] = {}
    for (text, _), theirs, ours in zip([(a[0], a[2]) for a in asked], expected, found, strict=True):
        by_question.setdefault(text[0], []).append((theirs[0], ours[0]))
    for pairs in filter(lambda pairs: len(pairs) > 1, by_question.values()):
        yield [one for one, _ in pairs], [other for _, other in pairs]
