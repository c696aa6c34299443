"""CoQA: questions and answers about a story.

Each story gives one conversation. The story is its context, the questions are the user's turns and
the answers are the assistant's. The last answer is rated, with the whole history before it. More
conversations per story would share the story, the history and the group, so they would make the
files longer but add hardly any evidence.

The answer "unknown" marks a question that the story does not answer; no person said it. Such
answers stay in the history, but a conversation ends with the last answer that is not "unknown".

There are two formats. In the original JSON, a question and its answer have the same ``turn_id``,
but not always the same position. In the Hub's rows, they have the same position. The answers of
other annotators (``additional_answers``) are not imported. The group is the story.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regreason_plugin.core.records import Conversation
from regreason_plugin.data.groups import normalise, text_group
from regreason_plugin.data.importer import Importer, conversation, items_of, text_of, turn
from regreason_plugin.data.source_rows import HubDataset, LeftOut, Malformed
from regreason_plugin.data.text_cleaning import clean


def convert(dataset: str, row: dict[str, Any]) -> Iterator[Conversation | LeftOut]:
    """Yield the conversation of a story.

    Raises:
        LeftOut: A field is missing or has the wrong type, a question has no answer, or every
            answer is "unknown".
    """
    story = clean(text_of(row, "story"))
    if not story:
        raise Malformed("is empty", "story")
    answers = row.get("answers")
    pairs = _by_position(row, answers) if isinstance(answers, dict) else _by_turn_id(row)
    turns = []
    end = 0
    for question, answer in pairs:
        turns += [turn("user", question), turn("assistant", answer)]
        if turns[-1].content and normalise(turns[-1].content) != "unknown":
            end = len(turns)
    if not end:
        raise LeftOut("every answer is 'unknown'", field="answers", broken=False)
    yield conversation(
        dataset,
        turns[:end],
        group=text_group(story),
        context=story,
        meta={"source": row.get("source"), "turn": end // 2, "turns": len(turns) // 2},
    )


def _by_position(row: dict[str, Any], answers: dict[str, Any]) -> list[tuple[str, str]]:
    questions = [text for _, text in items_of(row, "questions", str, "is not a text")]
    texts = [text for _, text in items_of(answers, "input_text", str, "is not a text", "answers.")]
    if len(questions) != len(texts):
        raise Malformed("differ in number from the questions", "answers", len(texts))
    return list(zip(questions, texts, strict=True))


def _by_turn_id(row: dict[str, Any]) -> list[tuple[str, str]]:
    asked, answered = _texts(row, "questions"), _texts(row, "answers")
    if asked.keys() != answered.keys():
        odd = min(asked.keys() ^ answered.keys())
        raise Malformed("do not have the turn_ids of the questions", "answers", odd)
    return [(asked[number], answered[number]) for number in sorted(asked)]


def _texts(row: dict[str, Any], field: str) -> dict[int, str]:
    texts: dict[int, str] = {}
    for path, entry in items_of(row, field, dict, "is not an object with input_text and turn_id"):
        turn_id = entry.get("turn_id")
        if type(turn_id) is not int or turn_id in texts:
            raise Malformed("is not an integer, or occurs twice", f"{path}.turn_id", turn_id)
        texts[turn_id] = text_of(entry, "input_text", f"{path}.")
    return texts


IMPORTER = Importer(
    datasets=("coqa",),
    convert=convert,
    forms=(frozenset({"story", "questions", "answers"}),),
    also=frozenset({"source"}),
    hub={"default": HubDataset("stanfordnlp/coqa")},
)
