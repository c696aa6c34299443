"""AmazonQA: a customer's question on a product, and an answer; the answer is rated.

Three formats: ``query`` and ``answer``; ``query`` and ``pos`` (one answer or a list); and
the original ``*-qar.jsonl`` with ``questionText`` and ``answers``. Of several answers one
is taken, so that a question much answered weighs no more than another: that with the
most helpful votes, where there are votes, and among equals that with the smallest
SHA-256 of its text, which favours no wording and no place in the file.

HTML entities are unescaped, once. The group is the product (its ``asin``), else the
normalised question. No format names the product, so there is no context; the review
snippets of the original were not before who answered, and stay behind.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from regreason_plugin.core.records import Conversation
from regreason_plugin.data.groups import named_group, text_group
from regreason_plugin.data.importer import Importer, conversation, digest, list_of, text_of, turn
from regreason_plugin.data.source_rows import HubDataset, LeftOut, Malformed
from regreason_plugin.data.text_cleaning import clean

# questionType and answerType have it where they do not apply.
_NO_TYPE = ("", "NA")


def convert(dataset: str, row: dict[str, Any]) -> Iterator[Conversation | LeftOut]:
    """The question of a row with one answer.

    Raises:
        LeftOut: A field is missing or of the wrong type, or there is no answer.
    """
    asked = "query" if "query" in row else "questionText"
    question = turn("user", html.unescape(text_of(row, asked)))
    if not question.content:
        raise LeftOut("nobody asks anything", field=asked)
    answers = _answers(row)
    if not answers:
        raise LeftOut("no response at its end", field=_answer_field(row))
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
    """The answers that say something: text, helpful votes, type."""
    field = _answer_field(row)
    found: list[tuple[str, int, Any]] = []
    if field == "answers":
        for number, answer in enumerate(list_of(row, field)):
            place = f"{field}.{number}"
            if not isinstance(answer, dict):
                raise Malformed("is no answer with answerText", place, answer)
            text = text_of(answer, "answerText", f"{place}.")
            found.append((text, _votes(answer.get("helpful")), answer.get("answerType")))
    elif field == "pos" and isinstance(row.get(field), list):
        for number, text in enumerate(row[field]):
            if not isinstance(text, str):
                raise Malformed("is no text", f"{field}.{number}", text)
            found.append((text, 0, None))
    else:
        found.append((text_of(row, field), 0, None))
    cleaned = [(clean(html.unescape(text)), votes, kind) for text, votes, kind in found]
    return [answer for answer in cleaned if answer[0]]


def _votes(helpful: Any) -> int:
    """``[helpful, total]``; whatever else stands there is no vote."""
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
