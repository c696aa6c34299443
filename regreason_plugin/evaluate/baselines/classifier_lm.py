"""A classifier as lm-eval's model: the log-likelihood of a label is its log-probability."""

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
    """What answers."""

    def log_probabilities(self, setting: Setting, prompts: Sequence[str]) -> Array:
        """Of each label, ``[N, labels]``, finite."""


class ClassifierLM(LM):  # type: ignore[misc]
    """Answers the labels of known tasks, and nothing else.

    Args:
        classifier: What answers.
        declaration: Of the data.
        tasks: The settings that are asked, by task.
        tokenizer: Its chat template is put around prompts where lm-eval asks for one; None
            where none is asked for.
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
        # Whether a space comes before it is between the task and the chat template.
        self._place = {label.strip(): at for at, label in enumerate(declaration.written)}
        # The task divides a score by its label's length, which is none of a classifier's business.
        self._length = [
            len(label) if declaration.normalise == "characters" else 1
            for label in declaration.written
        ]
        self._tokenizer = tokenizer

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        """The log-probability of each label after its prompt, and whether it is the best one."""
        with self.clock.on(requests):
            return self._answers(requests)

    def _answers(self, requests: list[Any]) -> list[tuple[float, bool]]:
        prompts: dict[Setting, dict[str, None]] = {}
        for request in requests:
            prompts.setdefault(self._setting[request.task_name], {})[request.args[0]] = None
        known: dict[tuple[Setting, str], Array] = {}
        for setting, texts in prompts.items():
            scores = self._classifier.log_probabilities(setting, list(texts))
            known.update(((setting, text), row) for text, row in zip(texts, scores, strict=True))
        answers = []
        for request in requests:
            context, continuation = request.args
            scores = known[self._setting[request.task_name], context]
            label = self._place[continuation.strip()]
            score = float(scores[label]) * self._length[label]
            answers.append((score, label == int(np.argmax(scores))))
        return answers

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
        """A classifier has none."""
        raise NotImplementedError("a classifier has no likelihood of a text")

    def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
        """A classifier writes nothing."""
        raise NotImplementedError("a classifier writes no text")

    @property
    def tokenizer_name(self) -> str:
        """Whose chat template it is."""
        return "" if self._tokenizer is None else str(self._tokenizer.name_or_path)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The tokenizer's, for lm-eval's record."""
        return None if self._tokenizer is None else str(self._tokenizer.chat_template)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A prompt within the template."""
        assert add_generation_prompt, "a label is never begun for the model"
        return in_template(self._tokenizer, chat_history)


def in_template(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """Messages as the model of this tokenizer reads them, ready for its answer."""
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
