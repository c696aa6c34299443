"""Reads the samples of any task of lm_eval: each document's values of every metric."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.answer_choices import (
    Choices,
    brier_scores,
    choices_of,
    right_choice,
)
from regreason_plugin.evaluate.lm_eval_aggregation import ROUNDING, is_mean
from regreason_plugin.evaluate.logged_task import LoggedMetric, LoggedTask
from regreason_plugin.evaluate.samples import (
    check_count,
    existing_samples_file,
    hashes_of,
    no_sample,
    parse_line,
)
from regreason_plugin.metrics.answers import Array, Integers

# Fields that hold a text shared by several documents. If two documents have the same text there,
# they are one group.
TEXT_FIELDS = ("passage", "article", "paragraph", "context", "story")
_TRUTHS = {"True": True, "False": False}


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
    file = existing_samples_file(result)
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
            value = row.get(metric.name)
            # (lm_eval 0.4.11 writes a truth value of NumPy as text.)
            self.values[metric.key].append(
                _TRUTHS.get(value, value) if isinstance(value, str) else value
            )

    def _describe(self, row: dict[str, Any]) -> None:
        """Take what a document's lines have in common."""
        self.ids.append(int(row["doc_id"]))
        self.prompts.append(row["prompt_hash"])
        for name in self.fields:
            self.shared[name].append(_hash(_field(row["doc"], name)))
        if self.scores is None:
            return
        texts, scores = choices_of(row)
        right = right_choice(row, scores, texts)
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
                numbers = _mean_of(brier_scores(choices).tolist(), metric)
            if numbers is not None:
                values[key] = numbers
            elif is_mean(metric):
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
    if not math.isclose(sum(known) / len(known), metric.value, rel_tol=ROUNDING, abs_tol=ROUNDING):
        return None
    return np.array(
        [math.nan if value is None else value for value in by_document], dtype=np.float64
    )


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
