"""Reads the samples of any task of lm_eval: each document's values of every metric."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.logged_task import LoggedMetric, LoggedTask
from regreason_plugin.evaluate.samples import (
    check_count,
    hashes_of,
    no_sample,
    parse_line,
    samples_file,
)
from regreason_plugin.metrics.answers import Array, Integers
from regreason_plugin.metrics.count_formulas import log_probabilities

# Fields that hold a text shared by several documents. If two documents have the same text there,
# they are one group.
TEXT_FIELDS = ("passage", "article", "paragraph", "context", "story")
# Values computed from the documents' values may differ from lm_eval's in the last digits.
_ROUNDING = 1e-9


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


@dataclass(frozen=True)
class LoggedAnswers:
    """One model's answers in one task, for N documents in the order of their contents' hashes.

    Attributes:
        source: The samples file.
        keys: For each document, a key of its content and target; equal documents are counted.
        ids: lm_eval's number of each document.
        prompts: lm_eval's hash of each document's first prompt.
        lines: Where each document's line begins in the samples file, in bytes, ``[N]``; of several
            filters, the line of the task's main metric.
        groups: The name of each document's group.
        group_field: The field that makes the groups; None if every document is its own group.
        values: The documents' values of each metric that is their mean, ``[N]``; NaN where a
            document has none.
        items: The documents' values of each other metric, in lm_eval's form.
        choices: The scores of the answer choices; None unless every document has the same number
            of choices and one right choice.
    """

    source: Path
    keys: list[str]
    ids: list[int]
    prompts: list[str]
    lines: Integers = field(repr=False)
    groups: list[str]
    group_field: str | None
    values: dict[str, Array] = field(repr=False)
    items: dict[str, list[Any]] = field(repr=False)
    choices: Choices | None = field(repr=False)


def read_logged_answers(result: LoggedTask, group_by: str | None = None) -> LoggedAnswers:
    """Read the answers that a result was computed from.

    Args:
        result: The result.
        group_by: The field of the documents whose values are the groups, such as ``doc.passage``
            without ``doc.``; empty for no groups; None to use the first of `TEXT_FIELDS` whose
            texts repeat.

    Raises:
        UserError: There is no samples file, a line is broken, a document lacks the field, or the
            result was computed from other samples.
    """
    file = samples_file(result)
    if not file.is_file():
        raise UserError(
            f"has no {file.name} beside it, and models are compared document by document; run "
            "lm_eval with --log_samples, and keep both files in one folder under their names",
            path=result.source,
        )
    reader = _Reader(result, group_by)
    digest, begins = hashlib.sha256(), 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            row = parse_line(line, file, number)
            try:
                digest.update(hashes_of(row))
                reader.add(row, begins)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise no_sample(error, file, number) from None
            begins += len(line)
    if not reader.keys:
        raise UserError("holds no documents", path=file)
    check_count(len(reader.keys), digest.hexdigest(), result)
    return reader.answers(file)


class _Reader:
    """Collects the lines of one samples file, in which each filter has a line for each document."""

    def __init__(self, result: LoggedTask, group_by: str | None) -> None:
        self.result = result
        self.by_filter: dict[str, list[LoggedMetric]] = {}
        for metric in result.metrics.values():
            self.by_filter.setdefault(metric.filter, []).append(metric)
        # The filter of the main metric comes first in lm_eval's files, too.
        self.first = next(iter(self.by_filter))
        self.keys: dict[str, int] = {}
        self.ids: list[int] = []
        self.prompts: list[str] = []
        self.lines: list[int] = []
        self.fields: tuple[str, ...] = TEXT_FIELDS
        if group_by is not None:
            self.fields = (group_by,) if group_by else ()
        self.required = bool(group_by)
        self.shared: dict[str, list[str]] = {}
        self.values: dict[str, list[Any]] = {key: [] for key in result.metrics}
        self.places: dict[str, list[int]] = {}
        self.seen: dict[str, Counter[str]] = {}
        self.scores: list[list[float]] | None = (
            [] if result.output_type == "multiple_choice" else None
        )
        self.right: list[int] = []
        self.names: tuple[str, ...] | None = None

    def add(self, row: dict[str, Any], begins: int) -> None:
        """Take one line, which begins at a byte of the file.

        Raises:
            KeyError, TypeError, ValueError, IndexError: The line is no sample of lm_eval.
        """
        of_filter = row["filter"]
        content = f"{row['doc_hash']}{row.get('target_hash', '')}"
        # Equal documents are told apart by the order in which they come.
        count = self.seen.setdefault(of_filter, Counter())
        count[content] += 1
        key = f"{content}{count[content]}"
        if of_filter == self.first:
            if not self.keys:
                if not self.required:
                    self.fields = tuple(name for name in self.fields if name in row["doc"])
                self.shared = {name: [] for name in self.fields}
            self.keys[key] = len(self.keys)
            self.lines.append(begins)
            self._describe(row)
        self.places.setdefault(of_filter, []).append(self.keys[key])
        for metric in self.by_filter.get(of_filter, ()):
            self.values[metric.key].append(row.get(metric.name))

    def _describe(self, row: dict[str, Any]) -> None:
        """Take what a document's lines have in common."""
        self.ids.append(int(row["doc_id"]))
        self.prompts.append(row["prompt_hash"])
        for name in self.fields:
            self.shared[name].append(_hash(_field(row["doc"], name)))
        if self.scores is None:
            return
        scores = [float(pair[0]) for pair in row["filtered_resps"]]
        texts = tuple(str(one["arg_1"]) for one in row["arguments"].values())
        right = _right_choice(row, scores, texts)
        if right is None or (self.scores and len(scores) != len(self.scores[0])):
            self.scores = None
            return
        self.scores.append(scores)
        self.right.append(right)
        # (A lone half of a surrogate pair could not be written to the report.)
        names = tuple(text.encode("utf-8", "replace").decode() for text in texts)
        self.names = names if self.names in (None, names) else ()

    def answers(self, file: Path) -> LoggedAnswers:
        """Everything in the order of the documents' keys.

        Raises:
            UserError: The metrics differ from those of the results file.
        """
        keys = sorted(self.keys)
        order = np.array([self.keys[key] for key in keys])
        choices = self._choices(order)
        values: dict[str, Array] = {}
        items: dict[str, list[Any]] = {}
        for key, metric in self.result.metrics.items():
            by_document: list[Any] = [None] * len(keys)
            for place, value in zip(self.places[metric.filter], self.values[key], strict=True):
                by_document[place] = value
            numbers = _mean_of([by_document[place] for place in order], metric)
            if metric.name == "brier_score" and choices is not None:
                # lm_eval writes the probabilities as text, with too few digits.
                numbers = _mean_of(_brier_scores(choices).tolist(), metric)
            if numbers is not None:
                values[key] = numbers
            elif metric.aggregation == "mean":
                raise UserError(
                    f"has another {key} than {self.result.source.name} says ({metric.value:.6g}); "
                    "they are not of one run, so score the task again",
                    path=file,
                )
            else:
                items[key] = [by_document[place] for place in order]
        shared = next(
            (
                name
                for name, texts in self.shared.items()
                if self.required or len({*texts}) < len(texts)
            ),
            None,
        )
        return LoggedAnswers(
            source=file,
            keys=keys,
            ids=[self.ids[place] for place in order],
            prompts=[self.prompts[place] for place in order],
            lines=np.array(self.lines)[order],
            groups=[self.shared[shared][place] for place in order] if shared else keys,
            group_field=shared,
            values=values,
            items=items,
            choices=choices,
        )

    def _choices(self, order: Integers) -> Choices | None:
        if not self.scores or not np.isfinite(self.scores).all():
            return None
        return Choices(self.names or (), np.array(self.right)[order], np.array(self.scores)[order])


def _mean_of(by_document: Sequence[Any], metric: LoggedMetric) -> Array | None:
    """The documents' values ``[N]``, if lm_eval's value is their mean; else None."""
    known = [value for value in by_document if value is not None]
    if not known or not all(isinstance(value, int | float) for value in known):
        return None
    if not math.isclose(
        sum(known) / len(known), metric.value, rel_tol=_ROUNDING, abs_tol=_ROUNDING
    ):
        return None
    return np.array(
        [math.nan if value is None else value for value in by_document], dtype=np.float64
    )


def _brier_scores(choices: Choices) -> Array:
    """The squared distance of the probabilities from the right choice, ``[N]`` (Brier 1950)."""
    right = np.eye(choices.scores.shape[1])[choices.right]
    scores: Array = ((np.exp(log_probabilities(choices.scores)) - right) ** 2).sum(axis=1)
    return scores


def _right_choice(row: dict[str, Any], scores: Sequence[float], texts: Sequence[str]) -> int | None:
    """The index of the right choice.

    lm_eval writes the target as text, whether it is the index or the text of a choice. If both are
    possible, the logged accuracy decides.

    Returns:
        None if the target is not one of the choices, or both remain possible.
    """
    target, stripped = str(row["target"]).strip(), [text.strip() for text in texts]
    possible = {int(target)} if target.isdecimal() and int(target) < len(texts) else set()
    if target in stripped:
        possible.add(stripped.index(target))
    if len(possible) > 1 and "acc" in row:
        best = max(range(len(scores)), key=lambda choice: scores[choice])
        possible = {choice for choice in possible if (choice == best) == bool(row["acc"])}
    return possible.pop() if len(possible) == 1 else None


def _field(document: Any, name: str) -> Any:
    """The value of a field of a document; a dot leads into an inner object.

    Raises:
        KeyError: The document has no such field.
    """
    value = document
    for part in [name] if name in document else name.split("."):
        value = value[part]
    return value


def _hash(value: Any) -> str:
    # (JSON may hold a lone half of a surrogate pair, which UTF-8 has not.)
    content = str(value).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=12).hexdigest()


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
    requests = list(row["arguments"].values())
    prompt, target = str(requests[0]["arg_0"]), str(row["target"])
    choices = tuple(str(one.get("arg_1")).strip() for one in requests)
    if len({*choices}) < max(len(choices), 2):
        return Texts(prompt, target, _written(row["filtered_resps"][0]), (), 0, [])
    scores = np.array([float(pair[0]) for pair in row["filtered_resps"]])
    right = _right_choice(row, scores.tolist(), choices)
    answer = choices[int(scores.argmax())]
    if right is None:
        return Texts(prompt, target, answer, (), 0, [])
    probabilities = np.exp(log_probabilities(scores[None]))[0]
    shares = [round(float(p), 4) for p in probabilities]
    return Texts(prompt, choices[right], answer, choices, right, shares)


def _written(answer: Any) -> str:
    """An answer that the model wrote, or its log-likelihood of a given text in words."""
    if isinstance(answer, list) and len(answer) == 2 and str(answer[1]) in ("True", "False"):
        greedy = "greedy" if str(answer[1]) == "True" else "not greedy"
        return f"log-likelihood {float(answer[0]):.4g}, {greedy}"
    return str(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer)


Aggregate = Callable[[list[Any]], float]


def aggregation_of(metric: LoggedMetric, items: list[Any]) -> Aggregate | None:
    """lm_eval's own function that makes a metric from the documents' values.

    Args:
        metric: The metric.
        items: The documents' values, with which the function is tried.

    Returns:
        None if lm_eval does not know the function here, or if the function gives another value
        than the results do.
    """
    from lm_eval.api import metrics as _  # noqa: F401 - registers lm_eval's functions
    from lm_eval.api.registry import aggregation_registry, metric_agg_registry

    by_name = ((aggregation_registry, metric.aggregation), (metric_agg_registry, metric.name))
    for functions, name in by_name:
        if name not in functions:
            continue
        function: Aggregate = functions.get(name)
        try:
            value = value_of(function, items)
        except Exception:  # noqa: S112 - a function may refuse the values of another
            continue
        if math.isclose(value, metric.value, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            return function
    return None


def value_of(function: Aggregate, items: list[Any]) -> float:
    """A metric over documents, without the warnings of libraries about single bootstrap samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(items))
