"""The texts of single documents in the samples of any task of lm_eval, for display."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from regreason_plugin.evaluate.answer_choices import choices_of, right_choice
from regreason_plugin.evaluate.logged_task import LoggedTask
from regreason_plugin.evaluate.samples import parse_line, samples_file
from regreason_plugin.metrics.count_formulas import log_probabilities


@dataclass(frozen=True)
class Texts:
    """The texts of one document, for display.

    Attributes:
        prompt: The text that the model read.
        target: The right answer.
        answer: The model's answer: the choice with the highest log-likelihood, or what it wrote.
        choices: The answer choices; empty if the model wrote an answer.
        right: The index of the right choice; 0 without one.
        probabilities: The probabilities of the choices, in their order.
    """

    prompt: str
    target: str
    answer: str
    choices: tuple[str, ...]
    right: int
    probabilities: list[float]


def read_texts(result: LoggedTask, lines: Iterable[int]) -> list[Texts]:
    """The texts of the documents whose lines begin at these bytes of the samples file."""
    with samples_file(result).open("rb") as stream:
        texts = []
        for begins in lines:
            stream.seek(begins)
            texts.append(_texts(parse_line(stream.readline(), samples_file(result), 0)))
    return texts


def _texts(row: dict[str, Any]) -> Texts:
    prompt, target = str(row["arguments"]["gen_args_0"]["arg_0"]), str(row["target"])
    if len(row["arguments"]) < 2:
        return Texts(prompt, target, _written(row["filtered_resps"][0]), (), 0, [])
    choices, scores = choices_of(row)
    right = right_choice(row, scores, choices)
    answer = choices[scores.index(max(scores))]
    if right is None or len({*choices}) < len(choices):
        return Texts(prompt, target, answer, (), 0, [])
    probabilities = np.exp(log_probabilities(np.array([scores])))[0]
    shares = [round(float(p), 4) for p in probabilities]
    return Texts(prompt, choices[right], answer, choices, right, shares)


def _written(answer: Any) -> str:
    """An answer that the model wrote, or its log-likelihood of a given text in words."""
    if isinstance(answer, list) and len(answer) == 2 and str(answer[1]) in ("True", "False"):
        greedy = "greedy" if str(answer[1]) == "True" else "not greedy"
        return f"log-likelihood {float(answer[0]):.4g}, {greedy}"
    return str(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer)
