"""Reading the documents that lm_eval wrote with --log_samples, one line each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import date_of
from regreason_plugin.evaluate.task_results import TaskResult
from regreason_plugin.metrics.answers import Answers, Array
from regreason_plugin.metrics.count_formulas import log_probabilities
from regreason_plugin.metrics.label_metrics import comparable
from regreason_plugin.metrics.metric_names import FORCED, LAYERS, PROBES


@dataclass(frozen=True)
class Document:
    """The text of one document, for a reader."""

    id: str
    group: str
    label: int
    prompt: str
    explanation: str


def samples_file(result: TaskResult) -> Path:
    """Where lm_eval puts the samples of a task that a results file is of."""
    return result.source.with_name(f"samples_{result.task}_{date_of(result.source)}.jsonl")


def read_answers(result: TaskResult) -> Answers:
    """Read the answers that belong to a result.

    Raises:
        UserError: There are none, a line is broken, a document stands twice, a score is not
            finite, or they are not those that the result was made from.
    """
    file = samples_file(result)
    if not file.is_file():
        raise UserError(
            f"has no {file.name} beside it, and only single documents can be paired; run "
            "lm_eval with --log_samples, and keep both files together under the names it gave",
            path=result.source,
        )
    setting = result.setting
    # After explanations of their own, models have read different tokens.
    prefix = FORCED if setting.generative else ""
    digest = hashlib.sha256()
    rows = sorted(_rows(file, len(setting.labels), prefix, digest), key=lambda row: row[0])
    if not rows:
        raise UserError("holds no documents", path=file)
    ids, hashes, groups, labels, scores, probes, layers = zip(*rows, strict=True)
    for one, next_one in pairwise(ids):
        if one == next_one:
            raise UserError(f"document {one!r} stands twice", path=file)
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
    _check_count(len(rows), digest.hexdigest(), result)
    _check(answers, result)
    return answers


def scored_ids(result: TaskResult) -> list[str] | None:
    """The ids of the documents that a result was made from, in their order.

    Returns:
        None where it has no samples beside it.

    Raises:
        UserError: They are broken, or not those that the result was made from.
    """
    file = samples_file(result)
    if not file.is_file():
        return None
    digest = hashlib.sha256()
    ids = []
    for number, row in _lines(file):
        try:
            ids.append(str(row["doc"]["id"]))
            digest.update(_hashes(row))
        except (KeyError, TypeError) as error:
            raise _no_sample(error, file, number) from None
    _check_count(len(ids), digest.hexdigest(), result)
    return sorted(ids)


def documents_of(result: TaskResult) -> int:
    """How many documents a result was made from, counted where it has samples beside it.

    Raises:
        UserError: As `scored_ids`.
    """
    ids = scored_ids(result)
    return result.documents if ids is None else len(ids)


def read_documents(file: Path, wanted: Iterable[str]) -> dict[str, Document]:
    """The texts of some documents of a samples file, by id."""
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
    """One field of a result's documents as text, by their ids.

    Raises:
        UserError: A document lacks it.
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
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, orjson.loads(line)
            except ValueError as error:
                raise UserError(f"is not JSON: {error}", path=file, line=number) from None


def _rows(file: Path, count: int, prefix: str, digest: hashlib._Hash) -> Iterator[tuple[Any, ...]]:
    for number, row in _lines(file):
        try:
            document = row["doc"]
            digest.update(_hashes(row))
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
            raise _no_sample(error, file, number) from None


def _no_sample(error: Exception, file: Path, line: int) -> UserError:
    return UserError(
        f"is no line of our tasks' samples ({type(error).__name__}: {error})", path=file, line=line
    )


def _hashes(row: dict[str, Any]) -> bytes:
    """What lm_eval hashes of all samples in their order, for ``task_hashes`` of its results."""
    return f"{row['doc_hash']}{row['prompt_hash']}{row.get('target_hash', '')}".encode()


def _hash(document: str, prompt: str) -> str:
    return hashlib.blake2b(f"{document} {prompt}".encode(), digest_size=16).hexdigest()


def _scores(responses: list[Any], count: int) -> list[float]:
    """The log-likelihoods of the labels; of a twin those after its own explanation."""
    scores = [float(pair[0]) for pair in responses if not isinstance(pair, str)][:count]
    if len(scores) < count or not np.isfinite(scores).all():
        raise ValueError(f"label scores {scores}, not {count} finite numbers")
    return scores


def _columns(names: tuple[str, ...], rows: Any, file: Path) -> dict[str, Array]:
    """What all documents may have a value of, by name; left out where none has one.

    Raises:
        UserError: Documents have different numbers of layers, or values that are no numbers.
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
            raise UserError(f"{name} has what is no number: {error}", path=file) from None
    return columns


def _check_count(count: int, digest: str, result: TaskResult) -> None:
    """Refuse a file that lacks lines.

    (With ``--samples`` lm_eval 0.4.11 still says that all documents were scored; the hash tells.)
    """
    if count != result.documents and digest != result.samples_hash:
        raise UserError(
            f"holds {count} documents and {result.source.name} says {result.documents}; "
            "score the task again",
            path=samples_file(result),
        )


def _check(answers: Answers, result: TaskResult) -> None:
    """Refuse samples that the result was not made from."""
    if not ((answers.labels >= 1) & (answers.labels <= answers.count)).all():
        raise UserError(f"has a label that is none of 1 to {answers.count}", path=answers.source)
    accuracy = float(answers.correct.mean())
    if result.metrics["acc"] is None or abs(accuracy - result.metrics["acc"]) > 1e-9:
        raise UserError(
            f"has an accuracy of {accuracy:.6g} and {result.source.name} says "
            f"{result.metrics['acc']}; they are not of one run, score the task again",
            path=answers.source,
        )
