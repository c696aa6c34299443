"""Chatbot Arena: one prompt to two models, and the answer that a person preferred.

Each row gives two conversations, one per model, and the last answer of each is rated. Both are
real answers, and the winners alone would leave the low end of the scale empty. Ids are computed
from the content, so two models with the same answers give one conversation. Both conversations are
in the group of their first user turn, like all other rows with the same first request.

``meta`` has the model, the outcome of its answer (``won``, ``lost``, ``tie``, ``tie (bothbad)``)
and the language. The judge, the time and the moderation flags are not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regreason_plugin.core.records import Conversation, Turn
from regreason_plugin.data.groups import first_user_turn_group
from regreason_plugin.data.importer import Importer, conversation, items_of, text_of, turn
from regreason_plugin.data.source_rows import HubDataset, LeftOut, Malformed

_ROLES = ("system", "user", "assistant")


def convert(dataset: str, row: dict[str, Any]) -> Iterator[Conversation | LeftOut]:
    """Yield both conversations of a row; one can be left out without the other."""
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
    for path, message in items_of(row, field, dict, "is not an object with role and content"):
        role = text_of(message, "role", f"{path}.")
        if role not in _ROLES:
            raise Malformed("is not one of " + ", ".join(_ROLES), f"{path}.role", role)
        turns.append(turn(role, text_of(message, "content", f"{path}.")))
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
