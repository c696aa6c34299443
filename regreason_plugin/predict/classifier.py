"""`Classifier`: labels texts with a trained model, through the requests that lm-eval makes.

A label's score equals the one that `regreason eval` computes on the same prompt, so both choose
the same label.
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
from regreason_plugin.core.errors import UserError, raising_user_errors
from regreason_plugin.core.label_tokens import check_label_tokens
from regreason_plugin.core.model_use import ModelUse, check_use, prompt_hashes
from regreason_plugin.core.prompt import TARGET_DELIMITER, cut, render_prompt
from regreason_plugin.core.records import Conversation
from regreason_plugin.data_folder.lengths import Measure
from regreason_plugin.evaluate.explanation_first import before_label, split_generation
from regreason_plugin.evaluate.scorer import say
from regreason_plugin.metrics.answers import Array
from regreason_plugin.metrics.count_formulas import log_probabilities
from regreason_plugin.metrics.label_metrics import comparable
from regreason_plugin.predict.model_loading import load_model, read_model_args
from regreason_plugin.predict.prediction_task import find_question
from regreason_plugin.predict.predictions import Prediction

# The longest explanation, in tokens; the lm-eval tasks of models that explain first set the same.
MAX_NEW_TOKENS = 256
# Tokens kept free for the cue between an explanation and its label.
_CUE_TOKENS = 16


class _Prompt(NamedTuple):
    """The text that a model reads before it answers; ``cut`` says whether it was shortened."""

    context: str
    cut: bool


class Classifier:
    """Labels texts with a trained model.

    Args:
        model_args: The model, written as for ``regreason eval``: ``pretrained=BASE,peft=ADAPTER``.
        data: The data folder that the model was trained on.
        task: The ``task.yml``, instead of ``data``: only for a model that was trained label first
            and without a limit on the prompt's length.
        setting: The dataset and the axis; required if the data folder holds several settings.
        batch_size: Rows per batch, or ``auto``.
        device: A device such as ``cpu``; None selects a GPU if there is one.
        apply_chat_template: Format prompts with the model's chat template, as the flag of
            ``regreason eval`` does.
        allow_misfit: Accept a model that was trained differently: with other prompts or labels,
            or on another base model.
        calibrated: Divide the labels' scores by the temperature that `regreason calibrate` has
            written into the model's folder. Labels stay the same.

    Attributes:
        question: The labels, the prompt and the limits of the setting that is classified.
        misfit: The differences between the model's training and this use; always empty without
            ``allow_misfit``.
        temperature: What the labels' scores are divided by; 1 without ``calibrated``.

    Raises:
        UserError: A file or folder is missing, two arguments contradict each other, or the model
            was trained with other prompts or labels, or on another base model. With
            ``calibrated``: the model has no calibration, or one for another model, other data or
            other labels.

    Example:
        >>> from regreason_plugin import Classifier
        >>> classifier = Classifier("pretrained=BASE", task="tickets/task.yml", device="cpu")
        >>> prediction = classifier(["My invoice is wrong."])[0]
        >>> sorted(prediction.probabilities)
        ['billing', 'delivery', 'technical']
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
        calibrated: bool = False,
    ) -> None:
        self.question = find_question(data, task, setting)
        arguments = read_model_args(model_args)
        self.temperature = 1.0
        if calibrated:
            self.temperature = self.question.temperature(arguments, data)
        self._lm = load_model(arguments, batch_size, device)
        if apply_chat_template and not self._lm.tokenizer.chat_template:
            raise UserError(
                "the model's tokenizer has no chat template; leave out --apply_chat_template"
            )
        self._chat = apply_chat_template
        self.misfit = self._check_use(arguments, allow_misfit)
        if self.misfit and calibrated:
            raise UserError(
                "a temperature does not fit a model that is used otherwise than it was trained; "
                "leave out --calibrated (calibrated=True in Python)"
            )
        self._new_tokens = min(MAX_NEW_TOKENS, self._lm.max_length // 2)
        room = self._lm.max_length - self._check_labels()
        if self.question.order == "explanation_first":
            room -= self._new_tokens + _CUE_TOKENS
        # A prompt is cut where it was cut for training, and wherever it exceeds the model's window.
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
        """Label texts.

        Args:
            texts: Texts, or for the eighteen settings conversations: each a `Conversation` or a
                dict of its fields.
            explain: Let the model explain its label. A model that explains first always does.

        Returns:
            One prediction per text, in order. A text that cannot be used gets an ``error`` in
            place of a label.
        """
        if isinstance(texts, str):
            raise TypeError("a classifier labels a list of texts; put a single text into a list")
        prompts = [self._prompt(text) for text in texts]
        contexts = [prompt.context for prompt in prompts if isinstance(prompt, _Prompt)]
        with raising_user_errors():
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
        # A chat template ends where the answer starts, so no delimiter follows it.
        delimiter = "" if self._chat else TARGET_DELIMITER
        answers = [self._answer(scores) for scores in self._scores(contexts, delimiter)]
        if explain:
            labelled = [number for number, answer in enumerate(answers) if answer.label is not None]
            end = self.question.declaration.label_end
            continued = [f"{contexts[n]}{delimiter}{answers[n].label}{end}\n" for n in labelled]
            # An explanation is one line, so its white space is collapsed.
            for number, text in zip(labelled, self._generate(continued, "\n"), strict=True):
                answers[number] = replace(answers[number], explanation=" ".join(text.split()))
        return answers

    def _explained_first(self, contexts: Sequence[str]) -> list[Prediction]:
        explanations, continued = self._explain_first(contexts)
        answers = [self._answer(scores) for scores in self._scores(continued, TARGET_DELIMITER)]
        return [
            replace(answer, explanation=explanation)
            for answer, explanation in zip(answers, explanations, strict=True)
        ]

    def _explain_first(self, contexts: Sequence[str]) -> tuple[list[str], list[str]]:
        """Generate explanations before the label, as `evaluate.explanation_first` does.

        Returns:
            The explanations, and the contexts continued up to the label.
        """
        texts = self._generate(contexts, "\n\n")
        explanations = [split_generation(text)[0] for text in texts]
        delimiter = "" if self._chat else TARGET_DELIMITER
        return explanations, [
            context + delimiter + before_label(explanation)
            for context, explanation in zip(contexts, explanations, strict=True)
        ]

    def prompt_scores(self, prompts: Sequence[str]) -> Array:
        """The labels' scores after rendered prompts, as the lm-eval tasks score a data folder.

        Args:
            prompts: Prompts of the data folder; they are not shortened.

        Returns:
            Scores in the form in which the task compares them, ``[N, K]``; not finite if the
            model's own are not.

        Raises:
            UserError: A prompt does not fit into the model's window.
        """
        room, length = self._limits[-1]
        if (longest := max(map(length, prompts))) > room:
            raise UserError(
                f"a prompt has {longest} tokens, but the model's window leaves room for {room}; "
                "build the data with --tokenizer and a smaller --max-prompt-tokens"
            )
        contexts = [self._context(prompt) for prompt in prompts]
        delimiter = "" if self._chat else TARGET_DELIMITER
        with raising_user_errors():
            if self.question.order == "explanation_first":
                contexts, delimiter = self._explain_first(contexts)[1], TARGET_DELIMITER
            scores = self._scores(contexts, delimiter)
        declared = self.question.declaration
        return comparable(np.array(scores), declared.written, declared.normalise)

    def _answer(self, scores: list[float]) -> Prediction:
        """The prediction from the log-likelihoods of all labels: the most probable label."""
        declared = self.question.declaration
        if not np.isfinite(scores).all():
            return Prediction(
                None, {}, error="the model's scores are not finite; dtype=float32 may help"
            )
        logits = comparable(scores, declared.written, declared.normalise)
        probabilities = np.exp(log_probabilities(logits / self.temperature))
        return Prediction(
            # From the plain probabilities, as in the lm-eval tasks: a temperature keeps the order.
            declared.labels[int(np.argmax(np.exp(log_probabilities(logits))))],
            dict(zip(declared.labels, probabilities.tolist(), strict=True)),
        )

    def _scores(self, contexts: Sequence[str], delimiter: str) -> list[list[float]]:
        """For each context the log-likelihood of every label, in the order of the labels."""
        labels = self.question.declaration.written
        requests = [
            Instance("loglikelihood", {}, (context, delimiter + label), index)
            for context in contexts
            for index, label in enumerate(labels)
        ]
        scores = [score for score, _ in self._lm.loglikelihood(requests, disable_tqdm=True)]
        return [scores[at : at + len(labels)] for at in range(0, len(scores), len(labels))]

    def _generate(self, contexts: Sequence[str], until: str) -> list[str]:
        """Continue each context by greedy decoding, up to the text ``until``."""
        if not contexts:
            return []
        if self._lm.batch_size == "auto":
            # lm-eval would detect the batch size again at every call.
            self._lm.batch_size_per_gpu = self._lm._detect_batch_size()
        requests = []
        for index, context in enumerate(contexts):
            # At least one token is free, because the prompt leaves room for its label.
            room = self._lm.max_length - len(self._lm.tok_encode(context))
            generation_arguments = {
                "until": [until],
                "do_sample": False,
                "max_gen_toks": max(1, min(self._new_tokens, room)),
            }
            requests.append(Instance("generate_until", {}, (context, generation_arguments), index))
        texts: list[str] = self._lm.generate_until(requests, disable_tqdm=True)
        return texts

    def _prompt(self, text: Any) -> _Prompt | str:
        """The prompt of a text, or a message that says why the text cannot be used."""
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
        """The function that measured prompts when the data folder was built."""
        name = self.question.tokenizer
        try:
            return Measure(name).prompt
        except UserError:
            say(
                f"the tokenizer that built the data, {name}, cannot be loaded; the limit of "
                f"{self.question.max_prompt} tokens is counted with the model's own tokenizer"
            )
            tokenizer = self._lm.tokenizer
            return lambda text: len(tokenizer.encode(text))

    def _check_labels(self) -> int:
        """Check that the model's tokenizer keeps the labels apart.

        Returns:
            The number of tokens of the longest label.

        Raises:
            UserError: `check_label_tokens` refuses a label.
        """
        delimiter = "" if self._chat else TARGET_DELIMITER
        if self.question.order == "explanation_first":
            delimiter = TARGET_DELIMITER
        context = self._context("Label:")

        def encode(label: str) -> list[int]:
            tokens: list[int] = self._lm._encode_pair(context, delimiter + label)[1]
            return tokens

        return check_label_tokens(self.question.declaration.written, self._lm.tokenizer, encode)
