"""Wraps a classifier as an lm-eval model: a label's log-likelihood is its log-probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from lm_eval.api.model import LM

from regreason_plugin.core.cost import ScoringClock
from regreason_plugin.core.declaration import Declaration, Setting

Array: TypeAlias = npt.NDArray[np.float64]


class LabelScorer(Protocol):
    """A classifier that `ClassifierLM` can wrap."""

    def log_probabilities(self, setting: Setting, prompts: Sequence[str]) -> Array:
        """The finite log-probability of each label after each of N prompts, ``[N, labels]``."""


class ClassifierLM(LM):  # type: ignore[misc]
    """An lm-eval model that scores only the labels of the given tasks.

    Args:
        classifier: The classifier that scores the labels.
        declaration: The declaration of the data folder.
        tasks: The setting of each task.
        tokenizer: The tokenizer whose chat template is used if lm-eval asks for one; None if it
            does not ask.
    """

    def __init__(
        self,
        classifier: LabelScorer,
        declaration: Declaration,
        tasks: Mapping[str, Setting],
        tokenizer: Any = None,
    ) -> None:
        super().__init__()
        self.clock = ScoringClock()
        self._classifier = classifier
        self._setting = dict(tasks)
        # By the stripped label: whether a space precedes the label depends on the chat template.
        self._index = {label.strip(): at for at, label in enumerate(declaration.written)}
        # A task with normalised scores divides each by its label's length. Scores are multiplied
        # by that length, so that the task gets the classifier's own log-probabilities.
        self._length = [
            len(label) if declaration.normalise == "characters" else 1
            for label in declaration.written
        ]
        self._tokenizer = tokenizer

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        """Each label's log-probability after its prompt, and whether the label is the best."""
        with self.clock.on(requests):
            return self._answers(requests)

    def _answers(self, requests: list[Any]) -> list[tuple[float, bool]]:
        prompts: dict[Setting, dict[str, None]] = {}
        for request in requests:
            prompts.setdefault(self._setting[request.task_name], {})[request.args[0]] = None
        by_prompt: dict[tuple[Setting, str], Array] = {}
        for setting, texts in prompts.items():
            scores = self._classifier.log_probabilities(setting, list(texts))
            by_prompt.update(
                ((setting, text), row) for text, row in zip(texts, scores, strict=True)
            )
        answers = []
        for request in requests:
            context, continuation = request.args
            scores = by_prompt[self._setting[request.task_name], context]
            label = self._index[continuation.strip()]
            score = float(scores[label]) * self._length[label]
            answers.append((score, label == int(np.argmax(scores))))
        return answers

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
        """Not supported: a classifier gives no likelihood of a text.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a classifier gives no likelihood of a text")

    def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
        """Not supported: a classifier generates no text.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a classifier generates no text")

    @property
    def tokenizer_name(self) -> str:
        """The name of the tokenizer whose chat template is used; empty without one."""
        return "" if self._tokenizer is None else str(self._tokenizer.name_or_path)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The tokenizer's chat template, which lm-eval records in the results."""
        return None if self._tokenizer is None else str(self._tokenizer.chat_template)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt in the chat template."""
        assert add_generation_prompt, "a prompt never contains the beginning of its label"
        return in_template(self._tokenizer, chat_history)


def in_template(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The text of messages in a tokenizer's chat template, up to where the answer begins."""
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
