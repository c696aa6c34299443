"""The answer choices of a document in lm_eval's samples: texts, scores and the right choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regreason_plugin.metrics.answers import Array, Integers
from regreason_plugin.metrics.count_formulas import log_probabilities


@dataclass(frozen=True)
class Choices:
    """One model's scores of each document's answer choices.

    Attributes:
        names: The texts of the K choices, if all documents have the same ones; else empty.
        right: The index of the right choice, ``[N]``.
        scores: The log-likelihoods of the choices, ``[N, K]``.
    """

    names: tuple[str, ...]
    right: Integers
    scores: Array


def brier_scores(choices: Choices) -> Array:
    """The squared distance of the probabilities from the right choice, ``[N]`` (Brier 1950)."""
    right = np.eye(choices.scores.shape[1])[choices.right]
    scores: Array = ((np.exp(log_probabilities(choices.scores)) - right) ** 2).sum(axis=1)
    return scores


def choices_of(row: dict[str, Any]) -> tuple[tuple[str, ...], list[float]]:
    """The texts of a document's choices, and their log-likelihoods.

    Requests without a context are left out: they measure the choices alone, for metrics such as
    ``acc_mutual_info``. If all choices have the same text, their contexts tell them apart.
    """
    requests = list(row["arguments"].values())
    asked = [at for at, one in enumerate(requests) if one["arg_0"] or not requests[0]["arg_0"]]
    scores = [float(row["filtered_resps"][at][0]) for at in asked]
    texts = tuple(str(requests[at]["arg_1"]).strip() for at in asked)
    if len({*texts}) == 1:
        texts = tuple(str(requests[at]["arg_0"]).strip() for at in asked)
    return texts, scores


def right_choice(row: dict[str, Any], scores: Sequence[float], texts: Sequence[str]) -> int | None:
    """The index of the right choice.

    lm_eval writes the target as text, whether it is the index or the text of a choice. If both are
    possible, the logged accuracy decides.

    Returns:
        None if the target is not one of the choices, or both remain possible.
    """
    target = str(row["target"]).strip()
    possible = {int(target)} if target.isdecimal() and int(target) < len(texts) else set()
    if target in texts:
        possible.add(texts.index(target))
    if len(possible) > 1 and "acc" in row:
        best = max(range(len(scores)), key=lambda choice: scores[choice])
        possible = {choice for choice in possible if (choice == best) == bool(row["acc"])}
    return possible.pop() if len(possible) == 1 else None
