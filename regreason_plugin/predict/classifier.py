"""A trained model as a classifier: lm-eval's own requests, made the same way and scored the same.

A label's score is what `regreason eval` has for it on the same prompt, so the labels are the
same, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lm_eval.api.instance import Instance
from pydantic import ValidationError

from regreason_plugin.core.declaration import Setting
from regreason_plugin.core.errors import UserError, user_errors_passed_on
from regreason_plugin.core.label_tokens import check_label_tokens
from regreason_plugin.core.model_use import ModelUse, check_use, prompt_hashes
from regreason_plugin.core.prompt import TARGET_DELIMITER, cut, render_prompt
from regreason_plugin.core.records import Conversation
from regreason_plugin.data_folder.lengths import Measure
from regreason_plugin.evaluate.explanation_first import before_label, split_generation
from regreason_plugin.evaluate.scorer import say
from regreason_plugin.metrics.label_metrics import comparable
from regreason_plugin.predict.model_loading import load_model, read_model_args
from regreason_plugin.predict.prediction_task import find_question
from regreason_plugin.predict.predictions import Prediction

# Of an explanation, as the tasks of models that explain first have it.
MAX_NEW_TOKENS = 256
# Tokens kept free for the cue between an explanation and its label.
_CUE_TOKENS = 16


class _Prompt(NamedTuple):
    """What a model reads before it answers, and whether the text was cut for it."""

    context: str
    cut: bool


class Classifier:
    """Labels texts with a trained model.

    Args:
        model_args: As of ``regreason eval``: ``pretrained=BASE,peft=ADAPTER``.
        data: The data folder that the model was trained on.
        task: In its place the ``task.yml``, for a model that was trained label first and
            without a limit for prompts.
        setting: Dataset and axis, where the data hold several.
        batch_size: Rows a batch, or ``auto``.
        device: Such as ``cpu``; None for a GPU where there is one.
        apply_chat_template: As of ``regreason eval``.
        allow_misfit: Use a model otherwise than it was trained.

    Attributes:
        question: What is asked.
        misfit: What is otherwise than in the model's training; empty but for ``allow_misfit``.

    Raises:
        UserError: Something of it is not there, does not fit the rest, or the model was trained
            for other prompts, labels or another base model.
    """

    def __init__(
        self,
        model_args: str,
        data: str | Path | None = None,
        task: str | Path | None = None,
        *,
        setting: Setting | None = None,
        batch_size: int | str = "auto",
        device: str | None = None,
        apply_chat_template: bool = False,
        allow_misfit: bool = False,
    ) -> None:
        self.question = find_question(data, task, setting)
        arguments = read_model_args(model_args)
        self._lm = load_model(arguments, batch_size, device)
        if apply_chat_template and not self._lm.tokenizer.chat_template:
            raise UserError(
                "the model's tokenizer has no chat template; leave out --apply_chat_template"
            )
        self._chat = apply_chat_template
        self.misfit = self._check_use(arguments, allow_misfit)
        self._new_tokens = min(MAX_NEW_TOKENS, self._lm.max_length // 2)
        room = self._lm.max_length - self._check_labels()
        if self.question.order == "explanation_first":
            room -= self._new_tokens + _CUE_TOKENS
        # As for training, and so that nothing falls out of the model's window.
        self._limits: list[tuple[int, Callable[[str], int]]] = [(room, self._tokens)]
        if (limit := self.question.max_prompt) is not None:
            self._limits.insert(0, (limit, self._training_measure()))

    def _check_use(self, arguments: dict[str, Any], allow: bool) -> list[str]:
        declared = self.question.declaration
        differing = check_use(
            ModelUse(
                order=self.question.order,
                labels=declared.written,
                prompts=prompt_hashes(declared),
                chat_template=self._chat,
            ),
            arguments,
            render=self._lm.apply_chat_template if self._chat else None,
            tokenizer=self._lm.tokenizer,
            allow=allow,
            allowing="add --allow-misfit (allow_misfit=True in Python)",
        )
        return differing or []

    def __call__(
        self, texts: Iterable[str | Conversation | dict[str, Any]], *, explain: bool = False
    ) -> list[Prediction]:
        """A prediction for each text.

        Args:
            texts: Texts, or what is rated by the eighteen settings: conversations, as such or
                as their fields.
            explain: Let the model explain its label. One that explains first always does.
        """
        if isinstance(texts, str):
            raise TypeError("a list of texts is labelled, not a single text")
        prompts = [self._prompt(text) for text in texts]
        contexts = [one.context for one in prompts if isinstance(one, _Prompt)]
        with user_errors_passed_on():
            if self.question.order == "explanation_first":
                answers = self._explained_first(contexts)
            else:
                answers = self._labelled_first(contexts, explain)
        following = iter(answers)
        return [
            replace(next(following), cut=prompt.cut)
            if isinstance(prompt, _Prompt)
            else Prediction(None, {}, error=prompt)
            for prompt in prompts
        ]

    def _labelled_first(self, contexts: Sequence[str], explain: bool) -> list[Prediction]:
        # A chat template ends where the answer starts.
        delimiter = "" if self._chat else TARGET_DELIMITER
        answers = [self._answer(scores) for scores in self._scores(contexts, delimiter)]
        if explain:
            labelled = [number for number, answer in enumerate(answers) if answer.label is not None]
            end = self.question.declaration.label_end
            continued = [f"{contexts[n]}{delimiter}{answers[n].label}{end}\n" for n in labelled]
            # An explanation is one line.
            for number, text in zip(labelled, self._generate(continued, "\n"), strict=True):
                answers[number] = replace(answers[number], explanation=" ".join(text.split()))
        return answers

    def _explained_first(self, contexts: Sequence[str]) -> list[Prediction]:
        """As `evaluation.explanation_first`."""
        texts = self._generate(contexts, "\n\n")
        explanations = [split_generation(text)[0] for text in texts]
        delimiter = "" if self._chat else TARGET_DELIMITER
        continued = [
            context + delimiter + before_label(explanation)
            for context, explanation in zip(contexts, explanations, strict=True)
        ]
        answers = [self._answer(scores) for scores in self._scores(continued, TARGET_DELIMITER)]
        return [
            replace(answer, explanation=explanation)
            for answer, explanation in zip(answers, explanations, strict=True)
        ]

    def _answer(self, scores: list[float]) -> Prediction:
        """The likeliest label of log-likelihoods, one a label."""
        declared = self.question.declaration
        if not np.isfinite(scores).all():
            return Prediction(
                None, {}, error="the model's scores are not finite; dtype=float32 may help"
            )
        logits = comparable(scores, declared.written, declared.normalise)
        probabilities = np.exp(logits - np.logaddexp.reduce(logits))
        return Prediction(
            declared.labels[int(np.argmax(probabilities))],
            dict(zip(declared.labels, probabilities.tolist(), strict=True)),
        )

    def _scores(self, contexts: Sequence[str], delimiter: str) -> list[list[float]]:
        """The labels' log-likelihoods after each context, in the order of the labels."""
        labels = self.question.declaration.written
        requests = [
            Instance("loglikelihood", {}, (context, delimiter + label), index)
            for context in contexts
            for index, label in enumerate(labels)
        ]
        scores = [score for score, _ in self._lm.loglikelihood(requests, disable_tqdm=True)]
        return [scores[at : at + len(labels)] for at in range(0, len(scores), len(labels))]

    def _generate(self, contexts: Sequence[str], until: str) -> list[str]:
        """Greedy text after each context."""
        if not contexts:
            return []
        if self._lm.batch_size == "auto":
            # Once, not anew for every step.
            self._lm.batch_size_per_gpu = self._lm._detect_batch_size()
        requests = []
        for index, context in enumerate(contexts):
            # (A prompt that fits with its label leaves one token at least.)
            room = self._lm.max_length - len(self._lm.tok_encode(context))
            given = {
                "until": [until],
                "do_sample": False,
                "max_gen_toks": max(1, min(self._new_tokens, room)),
            }
            requests.append(Instance("generate_until", {}, (context, given), index))
        texts: list[str] = self._lm.generate_until(requests, disable_tqdm=True)
        return texts

    def _prompt(self, text: Any) -> _Prompt | str:
        """What the model reads, or why there is nothing to read."""
        question = self.question
        try:
            conversation = question.conversation(text)
            was_cut = False
            for limit, length in self._limits:
                conversation, what = cut(conversation, limit, length, question.declaration)
                was_cut = was_cut or what is not None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            return f"field {field}: {first['msg'].removeprefix('Value error, ')}"
        except ValueError as error:
            return str(error)
        prompt = render_prompt(conversation, question.axis, question.declaration)
        return _Prompt(self._context(prompt), was_cut)

    def _context(self, prompt: str) -> str:
        if not self._chat:
            return prompt
        message = {"role": "user", "content": prompt}
        context: str = self._lm.apply_chat_template([message])
        return context

    def _tokens(self, prompt: str) -> int:
        return len(self._lm.tok_encode(self._context(prompt)))

    def _training_measure(self) -> Callable[[str], int]:
        """How the data's limits are measured."""
        name = self.question.tokenizer
        try:
            return Measure(name).prompt
        except UserError:
            say(
                f"the data's tokenizer {name} is not here; the limit of "
                f"{self.question.max_prompt} tokens goes by the model's own"
            )
            tokenizer = self._lm.tokenizer
            return lambda text: len(tokenizer.encode(text))

    def _check_labels(self) -> int:
        """The longest label's tokens.

        Raises:
            UserError: As `check_label_tokens`.
        """
        delimiter = "" if self._chat else TARGET_DELIMITER
        if self.question.order == "explanation_first":
            delimiter = TARGET_DELIMITER
        context = self._context("Label:")

        def encode(label: str) -> list[int]:
            tokens: list[int] = self._lm._encode_pair(context, delimiter + label)[1]
            return tokens

        return check_label_tokens(self.question.declaration.written, self._lm.tokenizer, encode)
