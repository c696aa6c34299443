"""The six datasets in their original formats with invented content, and their import."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from regreason_plugin.core.jsonl import read_records
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.core.records import Conversation
from regreason_plugin.data.importing import Imported, import_dataset, open_source

SUBJECTS = ("bread", "rain", "chess", "paint", "bees", "sleep", "knots", "salt", "glass", "wool")


def imported(
    dataset: str, path: Path, out: Path | None = None, **options: Any
) -> tuple[list[Conversation], Imported]:
    """The conversations that an import of a local file wrote, and its output."""
    out = out or path.parent / f"{dataset}-out.jsonl"
    done = import_dataset(dataset, open_source(dataset, path=path), out, **options)
    conversations = list(read_records(out, Conversation, declaration=EIGHTEEN))
    assert len(conversations) == done.conversations
    assert len({conversation.group for conversation in conversations}) == done.groups
    return conversations, done


def texts(conversation: Conversation) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in conversation.conversation]


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """Write objects as JSON lines and texts unchanged, gzipped if the name ends in ``.gz``."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    raw = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=7)
    return path


def hh_row(ask: str, chosen: str = "Yes, it is.", rejected: str = "No idea.") -> dict[str, str]:
    return {
        "chosen": f"\n\nHuman: {ask}\n\nAssistant: {chosen}",
        "rejected": f"\n\nHuman: {ask}\n\nAssistant: {rejected}",
    }


def arena_row(ask: str, one: str = "Of course.", two: str = "Perhaps.", **more: Any) -> Any:
    def side(answer: str) -> list[dict[str, str]]:
        return [{"content": ask, "role": "user"}, {"content": answer, "role": "assistant"}]

    return {
        "question_id": "58210e39b3fd4441a2bd4a518bb44c2d",
        "model_a": "model-one",
        "model_b": "model-two",
        "winner": "model_a",
        "judge": "arena_user_973",
        "conversation_a": side(one),
        "conversation_b": side(two),
        "turn": 1,
        "anony": True,
        "language": "English",
        "tstamp": 1682351591.1322,
        "openai_moderation": '{"categories": {"hate": false}, "flagged": false}',
        "toxic_chat_tag": '{"roberta-large": {"flagged": false}}',
        **more,
    }


def qar_row(ask: str, *answers: tuple[str, list[int]], **more: Any) -> dict[str, Any]:
    return {
        "questionText": ask,
        "questionType": "descriptive",
        "review_snippets": ["It is nice .", "I like it ."],
        "answers": [
            {"answerText": text, "answerType": "NA", "helpful": helpful}
            for text, helpful in answers
        ],
        "asin": "B000AA0001",
        "category": "Home_and_Kitchen",
        "qid": 17,
        "is_answerable": 1,
        **more,
    }


def coqa_story(story: str, *pairs: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A story in the format of the original file."""
    return {
        "source": "mctest",
        "id": "3dr23u6we5exclen4th8uq9rb42tel",
        "filename": "mc160.test.41",
        "story": story,
        "questions": [
            {"input_text": question, "turn_id": number}
            for number, (question, _) in enumerate(pairs, start=1)
        ],
        "answers": [
            {
                "span_start": 0,
                "span_end": 4,
                "span_text": story[:4],
                "input_text": answer,
                "turn_id": number,
            }
            for number, (_, answer) in enumerate(pairs, start=1)
        ],
        "name": "mc160.test.41",
        **more,
    }


def coqa_hub(story: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    """A story in the format of the Hub's rows."""
    return {
        "source": "mctest",
        "story": story,
        "questions": [question for question, _ in pairs],
        "answers": {
            "input_text": [answer for _, answer in pairs],
            "answer_start": [0 for _ in pairs],
            "answer_end": [4 for _ in pairs],
        },
    }


Spoken = tuple[str, str]  # a character and their line


def write_cornell(folder: Path, exchanges: Sequence[tuple[str, Sequence[Spoken]]]) -> Path:
    """Write the two original files from the film and the lines of each conversation."""
    folder.mkdir(exist_ok=True)
    lines, conversations, number = [], [], 100
    for film, spoken in exchanges:
        names = []
        for speaker, text in spoken:
            number += 1
            names.append(f"L{number}")
            lines.append(f"L{number} +++$+++ {speaker} +++$+++ {film} +++$+++ NAME +++$+++ {text}")
        speakers = sorted({speaker for speaker, _ in spoken})
        two = (speakers * 2)[:2]
        conversations.append(f"{two[0]} +++$+++ {two[1]} +++$+++ {film} +++$+++ {names!r}")
    # In the real file, the last line comes first.
    (folder / "movie_lines.txt").write_bytes("\n".join([*lines[::-1], ""]).encode("latin-1"))
    (folder / "movie_conversations.txt").write_bytes("\n".join([*conversations, ""]).encode())
    return folder


def convokit(
    film: str, start: int, spoken: Sequence[Spoken], *, old: bool = False
) -> list[dict[str, Any]]:
    """A conversation as ConvoKit's utterances, with its current or its former key names."""
    speaker, conversation = ("user", "root") if old else ("speaker", "conversation_id")
    return [
        {
            "id": f"L{start + place}",
            conversation: f"L{start}",
            "text": text,
            speaker: who,
            "meta": {"movie_id": film, "parsed": [{"rt": 0, "toks": [{"tok": text}]}]},
            "reply-to" if old else "reply_to": f"L{start + place - 1}" if place else None,
            "timestamp": None,
            "vectors": [],
        }
        for place, (who, text) in enumerate(spoken)
    ]


def _ask(number: int) -> str:
    return f"Can you tell me {number} things about {SUBJECTS[number % 10]} and its price?"


def _tell(number: int) -> str:
    subject = SUBJECTS[number % 10]
    return (
        f"The {subject} is old. The price of {subject} number {number} is low.",
        f"I I do not know the {subject}. My uncle has {number} hats.",
        f"People like {subject}. It has {number} parts and a fair price.",
    )[number % 3]


def write_all(folder: Path, count: int) -> dict[str, Path]:
    """Write a source of each dataset with at least ``count`` conversations, each format once."""

    def rows(make: Callable[[int], Any]) -> list[Any]:
        return [make(number) for number in range(count)]

    pairs = rows(lambda n: hh_row(_ask(n), _tell(n), _tell(n + 1)))
    return {
        "chatbot_arena": write_parquet(
            folder / "arena.parquet", rows(lambda n: arena_row(_ask(n), _tell(n), _tell(n + 1)))
        ),
        "hh_chosen": write_lines(folder / "train.jsonl.gz", pairs),
        "hh_rejected": folder / "train.jsonl.gz",
        "amazon_qa": write_lines(
            folder / "train-qar.jsonl",
            rows(lambda n: qar_row(_ask(n), (_tell(n), [1, 2]), asin=f"B{n // 2}")),
        ),
        "coqa": _write_json(
            folder / "coqa-train-v1.0.json",
            rows(
                lambda n: coqa_story(
                    f"Story {n}. {_tell(n)}", (_ask(n), "Old."), (_ask(n + 1), _tell(n))
                )
            ),
        ),
        "cornell": write_cornell(
            folder / "cornell", rows(lambda n: (f"m{n // 2}", [("u0", _ask(n)), ("u2", _tell(n))]))
        ),
    }


def _write_json(path: Path, stories: list[Any]) -> Path:
    path.write_text(json.dumps({"version": "1.0", "data": stories}))
    return path
