"""CoQA: questions and answers on a story.

A story gives one conversation: the story is its context, the questions are the user's,
the answers the assistant's, and it ends on the last answer, which is rated with the
whole history before it. More of one story would share story, history and group, so
they would make longer files and hardly more evidence.

"unknown" stands for a question that the story does not answer; nobody said it. It is
kept in the history, and a conversation ends on the last answer that is another.

Two formats: the original JSON, in which a question and its answer have the same
``turn_id`` (not the same place), and the Hub's rows, in which they have the same place.
The answers of other annotators (``additional_answers``) stay behind. Group: the story.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from regreason_plugin.core.records import Conversation
from regreason_plugin.data.groups import normalise, text_group
from regreason_plugin.data.importer import Importer, conversation, list_of, text_of, turn
from regreason_plugin.data.source_rows import HubDataset, LeftOut, Malformed
from regreason_plugin.data.text_cleaning import clean


def convert(dataset: str, row: dict[str, Any]) -> Iterator[Conversation | LeftOut]:
    """The conversation of a story.

    Raises:
        LeftOut: A field is missing or of the wrong type, a question has no answer, or
            none is answered.
    """
    story = clean(text_of(row, "story"))
    if not story:
        raise Malformed("is empty", "story")
    questions = list_of(row, "questions")
    answers = row.get("answers")
    if isinstance(answers, dict):
        said = _by_place(questions, list_of(answers, "input_text", "answers."))
    else:
        said = _by_turn_id(questions, list_of(row, "answers"))
    turns = []
    end = 0
    for question, answer in said:
        turns += [turn("user", question), turn("assistant", answer)]
        if turns[-1].content and normalise(turns[-1].content) != "unknown":
            end = len(turns)
    if not end:
        raise LeftOut("no answer but 'unknown'", field="answers", broken=False)
    yield conversation(
        dataset,
        turns[:end],
        group=text_group(story),
        context=story,
        meta={"source": row.get("source"), "turn": end // 2, "turns": len(turns) // 2},
    )


def _by_place(questions: list[Any], answers: list[Any]) -> list[tuple[str, str]]:
    if len(questions) != len(answers):
        raise Malformed("are not as many as the questions", "answers", len(answers))
    for name, texts in (("questions", questions), ("answers.input_text", answers)):
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise Malformed("is no text", f"{name}.{number}", text)
    return list(zip(questions, answers, strict=True))


def _by_turn_id(questions: list[Any], answers: list[Any]) -> list[tuple[str, str]]:
    asked, answered = _texts(questions, "questions"), _texts(answers, "answers")
    if asked.keys() != answered.keys():
        odd = min(asked.keys() ^ answered.keys())
        raise Malformed("have other turn_ids than the questions", "answers", odd)
    return [(asked[number], answered[number]) for number in sorted(asked)]


def _texts(entries: list[Any], field: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, entry in enumerate(entries):
        place = f"{field}.{number}"
        if not isinstance(entry, Mapping):
            raise Malformed("is nothing with input_text and turn_id", place, entry)
        turn_id = entry.get("turn_id")
        if type(turn_id) is not int or turn_id in found:
            raise Malformed("is no number, or stands there twice", f"{place}.turn_id", turn_id)
        found[turn_id] = text_of(entry, "input_text", f"{place}.")
    return found


IMPORTER = Importer(
    datasets=("coqa",),
    convert=convert,
    forms=(frozenset({"story", "questions", "answers"}),),
    also=frozenset({"source"}),
    hub={"default": HubDataset("stanfordnlp/coqa")},
)
