"""Chatbot Arena: a prompt to two models, and which answer a person preferred.

A row gives two conversations, one a model, and the last answer of each is rated: both
are real answers, and taking only the winner's would leave the low end of the scale
empty. Their ids go by content, so that two models that said the same are one
conversation. Both are in the group of their first user turn, with every other row that
asks the same.

``meta`` has the model, how its answer fared (``won``, ``lost``, ``tie``, ``tie
(bothbad)``) and the language. Who judged, when, and the moderation flags stay behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regreason_plugin.core.records import Conversation, Turn
from regreason_plugin.data.groups import first_user_turn_group
from regreason_plugin.data.importer import Importer, conversation, list_of, text_of, turn
from regreason_plugin.data.source_rows import HubDataset, LeftOut, Malformed

_ROLES = ("system", "user", "assistant")


def convert(dataset: str, row: dict[str, Any]) -> Iterator[Conversation | LeftOut]:
    """Both conversations of a row, each by itself."""
    for side in ("a", "b"):
        try:
            turns = _turns(row, f"conversation_{side}")
            try:
                yield conversation(
                    dataset,
                    turns,
                    group=first_user_turn_group(turns),
                    meta={
                        "model": row.get(f"model_{side}"),
                        "outcome": _outcome(row.get("winner"), side),
                        "language": row.get("language"),
                    },
                )
            except LeftOut as left_out:
                raise LeftOut(left_out.reason, field=f"conversation_{side}") from None
        except LeftOut as left_out:
            yield left_out


def _turns(row: dict[str, Any], field: str) -> list[Turn]:
    turns = []
    for number, message in enumerate(list_of(row, field)):
        place = f"{field}.{number}"
        if not isinstance(message, dict):
            raise Malformed("is no message with role and content", place, message)
        role = text_of(message, "role", f"{place}.")
        if role not in _ROLES:
            raise Malformed("is none of " + ", ".join(_ROLES), f"{place}.role", role)
        turns.append(turn(role, text_of(message, "content", f"{place}.")))
    return turns


def _outcome(winner: Any, side: str) -> str | None:
    if not isinstance(winner, str) or not winner.startswith("model_"):
        return winner if isinstance(winner, str) else None
    return "won" if winner == f"model_{side}" else "lost"


IMPORTER = Importer(
    datasets=("chatbot_arena",),
    convert=convert,
    forms=(frozenset({"conversation_a", "conversation_b"}),),
    also=frozenset({"model_a", "model_b", "winner", "language"}),
    hub={"default": HubDataset("lmsys/chatbot_arena_conversations")},
)
