"""AmazonQA: a customer's question about a product, and an answer, which is rated.

There are three formats: ``query`` and ``answer``; ``query`` and ``pos`` (one answer or a list);
and the original ``*-qar.jsonl`` with ``questionText`` and ``answers``. If a question has several
answers, only one is imported, so that every question has the same weight: the answer with the most
helpful votes, if there are votes. Among equals it is the answer whose text has the smallest
SHA-256, which favours no wording and no position in the file.

HTML entities are unescaped once. The group is the product (its ``asin``), or the normalised
question if there is no product. No format has the product's name, so there is no context. The
original's review snippets are not imported, because the people who answered did not see them.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from regreason_plugin.core.records import Conversation
from regreason_plugin.data.groups import named_group, text_group
from regreason_plugin.data.importer import (
    Importer,
    conversation,
    digest,
    items_of,
    text_of,
    turn,
)
from regreason_plugin.data.source_rows import HubDataset, LeftOut
from regreason_plugin.data.text_cleaning import clean

# The values of questionType and answerType if the type does not apply.
_NO_TYPE = ("", "NA")


def convert(dataset: str, row: dict[str, Any]) -> Iterator[Conversation | LeftOut]:
    """Yield the conversation of a row: the question with one answer.

    Raises:
        LeftOut: A field is missing or has the wrong type, or there is no answer.
    """
    asked = "query" if "query" in row else "questionText"
    question = turn("user", html.unescape(text_of(row, asked)))
    if not question.content:
        raise LeftOut("no message from the user", field=asked)
    answers = _answers(row)
    if not answers:
        raise LeftOut("no response at the end", field=_answer_field(row))
    text, votes, kind = min(answers, key=lambda answer: (-answer[1], digest(answer[0])))
    product = row.get("asin")
    if not (isinstance(product, str) and clean(product)):
        product = None
    meta = {
        "asin": product,
        "category": row.get("category"),
        "question_type": _type(row.get("questionType")),
        "answer_type": _type(kind),
        "answers": len(answers) if len(answers) > 1 else None,
        "helpful_votes": votes or None,
    }
    if row.get("is_answerable") in (0, 1):  # either number or boolean
        meta["is_answerable"] = bool(row["is_answerable"])
    yield conversation(
        dataset,
        [question, turn("assistant", text)],
        group=named_group("product", clean(product)) if product else text_group(question.content),
        meta=meta,
    )


def _answer_field(row: Mapping[str, Any]) -> str:
    if "query" in row:
        return "answer" if "answer" in row else "pos"
    return "answers"


def _answers(row: Mapping[str, Any]) -> list[tuple[str, int, Any]]:
    """The answers that are not empty, each as its text, helpful votes and type."""
    field = _answer_field(row)
    answers: list[tuple[str, int, Any]] = []
    if field == "answers":
        for path, answer in items_of(row, field, dict, "is not an object with answerText"):
            text = text_of(answer, "answerText", f"{path}.")
            answers.append((text, _votes(answer.get("helpful")), answer.get("answerType")))
    elif field == "pos" and isinstance(row.get(field), list):
        answers += [(text, 0, None) for _, text in items_of(row, field, str, "is not a text")]
    else:
        answers.append((text_of(row, field), 0, None))
    cleaned = [(clean(html.unescape(text)), votes, kind) for text, votes, kind in answers]
    return [answer for answer in cleaned if answer[0]]


def _votes(helpful: Any) -> int:
    """The helpful votes of ``[helpful, total]``; 0 for any other value."""
    if isinstance(helpful, list) and helpful and type(helpful[0]) is int:
        return max(0, int(helpful[0]))
    return 0


def _type(kind: Any) -> str | None:
    return kind if isinstance(kind, str) and kind not in _NO_TYPE else None


IMPORTER = Importer(
    datasets=("amazon_qa",),
    convert=convert,
    forms=(
        frozenset({"query", "answer"}),
        frozenset({"query", "pos"}),
        frozenset({"questionText", "answers"}),
    ),
    also=frozenset({"asin", "category", "questionType", "is_answerable"}),
    hub={
        "pair": HubDataset("sentence-transformers/amazon-qa", config="pair"),
        "embedding-data": HubDataset("embedding-data/Amazon-QA"),
    },
)
