"""Reads the samples that lm_eval writes with --log_samples: one line per document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.logged_task import LoggedTask
from regreason_plugin.evaluate.results import date_of
from regreason_plugin.evaluate.task_results import TaskResult
from regreason_plugin.metrics.answers import Answers, Array
from regreason_plugin.metrics.count_formulas import log_probabilities
from regreason_plugin.metrics.label_metrics import comparable
from regreason_plugin.metrics.metric_names import FORCED, LAYERS, PROBES


@dataclass(frozen=True)
class Document:
    """The texts of one document, for display."""

    id: str
    group: str
    label: int
    prompt: str
    explanation: str


def samples_file(result: TaskResult | LoggedTask) -> Path:
    """The path of the samples file that belongs to a result."""
    return result.source.with_name(f"samples_{result.task}_{date_of(result.source)}.jsonl")


def existing_samples_file(result: TaskResult | LoggedTask) -> Path:
    """The path of the samples file that belongs to a result.

    Raises:
        UserError: There is no such file.
    """
    file = samples_file(result)
    if not file.is_file():
        raise UserError(
            f"has no {file.name} beside it, and models are compared document by document; run "
            "lm_eval with --log_samples, and keep both files in one folder under their names",
            path=result.source,
        )
    return file


def read_answers(result: TaskResult) -> Answers:
    """Read the answers that a result was computed from.

    Raises:
        UserError: There is no samples file, it is empty, a line is broken, a document occurs
            twice, a score is not finite, or the result was computed from other samples.
    """
    file = existing_samples_file(result)
    setting = result.setting
    # With explanations that each model wrote itself, the models have read different tokens.
    prefix = FORCED if setting.generative else ""
    digest = hashlib.sha256()
    rows = sorted(_rows(file, len(setting.labels), prefix, digest), key=lambda row: row[0])
    if not rows:
        raise UserError("holds no documents", path=file)
    ids, hashes, groups, labels, scores, probes, layers = zip(*rows, strict=True)
    for one, next_one in pairwise(ids):
        if one == next_one:
            raise UserError(f"document {one!r} occurs twice", path=file)
    logits = comparable(
        np.array(scores, dtype=np.float64),
        [label + setting.label_end for label in setting.labels],
        setting.normalise,
    )
    answers = Answers(
        task=result.task,
        source=file,
        ids=list(ids),
        hashes=list(hashes),
        groups=list(groups),
        labels=np.array(labels, dtype=np.int64),
        log_probabilities=log_probabilities(logits),
        probes=_columns(PROBES, probes, file),
        layers=_columns(LAYERS, layers, file),
        ordinal=setting.ordinal,
        probes_prefix=prefix,
    )
    check_count(len(rows), digest.hexdigest(), result)
    _check(answers, result)
    return answers


def scored_ids(result: TaskResult) -> list[str] | None:
    """The sorted ids of the documents that a result was computed from.

    Returns:
        None if there is no samples file.

    Raises:
        UserError: The samples file is broken, or the result was computed from other samples.
    """
    file = samples_file(result)
    if not file.is_file():
        return None
    digest = hashlib.sha256()
    ids = []
    for number, row in _lines(file):
        try:
            ids.append(str(row["doc"]["id"]))
            digest.update(hashes_of(row))
        except (KeyError, TypeError) as error:
            raise no_sample(error, file, number) from None
    check_count(len(ids), digest.hexdigest(), result)
    return sorted(ids)


def documents_of(result: TaskResult) -> int:
    """The number of documents that a result was computed from.

    It is counted in the samples file, if there is one; otherwise it is lm_eval's own number.

    Raises:
        UserError: As in `scored_ids`.
    """
    ids = scored_ids(result)
    return result.documents if ids is None else len(ids)


def read_documents(file: Path, wanted: Iterable[str]) -> dict[str, Document]:
    """The texts of the documents with the ids ``wanted``, by id, from a samples file."""
    missing = set(wanted)
    documents: dict[str, Document] = {}
    for _, row in _lines(file):
        document = row["doc"]
        if document["id"] in missing:
            documents[document["id"]] = Document(
                **{key: document[key] for key in ("id", "group", "label", "prompt", "explanation")}
            )
    return documents


def document_field(result: TaskResult, name: str) -> dict[str, str]:
    """The value of one field in each of a result's documents, as text, by document id.

    Raises:
        UserError: A document lacks the field.
    """
    file = samples_file(result)
    values = {}
    for number, row in _lines(file):
        document = row["doc"]
        if name not in document:
            known = ", ".join(sorted(document))
            raise UserError(
                f"the document has no field {name!r}; its fields are {known}",
                path=file,
                line=number,
            )
        values[str(document["id"])] = str(document[name])
    return values


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a samples file, each with its number.

    Raises:
        UserError: A line is not JSON.
    """
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            yield number, parse_line(line, file, number)


def parse_line(line: bytes, file: Path, number: int) -> dict[str, Any]:
    """The sample in one line of a samples file.

    Raises:
        UserError: The line is not JSON.
    """
    try:
        row: dict[str, Any] = orjson.loads(line)
    except ValueError:
        # lm_eval writes NaN and Infinity, which are not JSON.
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"is not JSON: {error}", path=file, line=number) from None
    return row


def _rows(file: Path, count: int, prefix: str, digest: hashlib._Hash) -> Iterator[tuple[Any, ...]]:
    for number, row in _lines(file):
        try:
            document = row["doc"]
            digest.update(hashes_of(row))
            yield (
                str(document["id"]),
                _hash(row["doc_hash"], row["prompt_hash"]),
                str(document["group"]),
                int(document["label"]),
                _scores(row["filtered_resps"], count),
                [row.get(prefix + name) for name in PROBES],
                [row.get(prefix + name) for name in LAYERS],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise no_sample(error, file, number) from None


def no_sample(error: Exception, file: Path, line: int) -> UserError:
    """The error for a line that is JSON but no sample."""
    return UserError(
        f"is no sample of this task ({type(error).__name__}: {error})", path=file, line=line
    )


def hashes_of(row: dict[str, Any]) -> bytes:
    """The bytes of one sample that go into lm_eval's hash of all samples (``task_hashes``)."""
    return f"{row['doc_hash']}{row['prompt_hash']}{row.get('target_hash', '')}".encode()


def _hash(document: str, prompt: str) -> str:
    return hashlib.blake2b(f"{document} {prompt}".encode(), digest_size=16).hexdigest()


def _scores(responses: list[Any], count: int) -> list[float]:
    """The labels' log-likelihoods; for a generative twin, those after the model's explanation.

    Raises:
        ValueError: There are fewer than ``count``, or one is not finite.
    """
    scores = [float(pair[0]) for pair in responses if not isinstance(pair, str)][:count]
    if len(scores) < count or not np.isfinite(scores).all():
        raise ValueError(f"label scores {scores}, not {count} finite numbers")
    return scores


def _columns(names: tuple[str, ...], rows: Any, file: Path) -> dict[str, Array]:
    """Per-document values as arrays, by name; names without any value are left out.

    Args:
        names: The names of the values, in the order of each row.
        rows: For each document, one value per name: a number, a list (one number per layer), or
            None.
        file: The samples file, for messages.

    Returns:
        Arrays ``[N]`` or ``[N, layers]`` for N documents, NaN where a document has no value.

    Raises:
        UserError: Documents have different numbers of layers, or a value is not a number.
    """
    columns = {}
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        known = [value for value in values if value is not None]
        if not known:
            continue
        nothing: Any = np.nan
        if isinstance(known[0], list):
            if len(lengths := {len(value) for value in known if isinstance(value, list)}) > 1:
                raise UserError(
                    f"{name} has unequal numbers of layers {sorted(lengths)}", path=file
                )
            nothing = [np.nan] * len(known[0])
        try:
            columns[name] = np.array(
                [nothing if value is None else value for value in values], dtype=np.float64
            )
        except (TypeError, ValueError) as error:
            raise UserError(f"{name} has a value that is no number: {error}", path=file) from None
    return columns


def check_count(count: int, digest: str, result: TaskResult | LoggedTask) -> None:
    """Refuse a samples file that lacks lines.

    (With ``--samples``, lm_eval 0.4.11 still records that all documents were scored. Then the
    hash of the samples shows that the file is complete.)
    """
    if count != result.documents and digest != result.samples_hash:
        raise UserError(
            f"holds {count} documents, but {result.source.name} says {result.documents}; "
            "score the task again",
            path=samples_file(result),
        )


def _check(answers: Answers, result: TaskResult) -> None:
    """Refuse samples that do not belong to the result: a wrong label or another accuracy."""
    if not ((answers.labels >= 1) & (answers.labels <= answers.count)).all():
        raise UserError(f"has a label outside 1 to {answers.count}", path=answers.source)
    accuracy = float(answers.correct.mean())
    if result.metrics["acc"] is None or abs(accuracy - result.metrics["acc"]) > 1e-9:
        raise UserError(
            f"has an accuracy of {accuracy:.6g}, but {result.source.name} says "
            f"{result.metrics['acc']}; they are not of one run, so score the task again",
            path=answers.source,
        )
