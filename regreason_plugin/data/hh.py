r"""HH-RLHF: pairs of a chosen and a rejected conversation; each side gives one conversation.

A side is one string, in which ``\n\nHuman:`` and ``\n\nAssistant:`` begin the turns. The real
files have consecutive turns of one role, empty turns, and histories that differ within a pair; all
of these are kept. The response is the text after the last ``\n\nAssistant:``.

If one side of a pair cannot be rated, neither side is imported. Both sides are in the group of the
chosen side's first user turn, and have the same ``pair`` in ``meta``. Samples are drawn by that
``pair``, so the same seed draws the same pairs for ``hh_chosen`` and ``hh_rejected``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from regreason_plugin.core.records import Conversation, Turn
from regreason_plugin.data.groups import first_user_turn_group
from regreason_plugin.data.importer import (
    Importer,
    check_rated,
    conversation,
    digest,
    text_of,
    turn,
)
from regreason_plugin.data.source_rows import HubDataset, LeftOut, Malformed

_SIDES = {"hh_chosen": "chosen", "hh_rejected": "rejected"}
_TURN = re.compile(r"\r?\n\r?\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SUBSETS = ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")


def parse_turns(text: str, side: str) -> list[Turn]:
    """Split one side of a pair into its turns.

    Raises:
        Malformed: The text does not start with a turn.
    """
    head, *rest = _TURN.split(text)
    if head.strip():
        raise Malformed("does not start with a turn", side, head.strip())
    return [
        turn(_ROLES[speaker], content)
        for speaker, content in zip(rest[::2], rest[1::2], strict=True)
    ]


def convert(dataset: str, row: dict[str, Any]) -> Iterator[Conversation | LeftOut]:
    """Yield the side of a pair that belongs to the dataset.

    Raises:
        LeftOut: The row is not a pair of texts, or a side has nothing to rate.
    """
    sides: dict[str, list[Turn]] = {}
    for side in _SIDES.values():
        sides[side] = parse_turns(text_of(row, side), side)
    for side, turns in sides.items():
        try:
            check_rated(turns)
        except LeftOut as left_out:
            raise LeftOut(left_out.reason, field=side) from None
    contents = [[(said.role, said.content) for said in turns] for turns in sides.values()]
    yield conversation(
        dataset,
        sides[_SIDES[dataset]],
        group=first_user_turn_group(sides["chosen"]),
        meta={"pair": digest(json.dumps(contents))[:12]},
    )


def _pair(conversation: Conversation) -> str:
    return str((conversation.meta or {})["pair"])


IMPORTER = Importer(
    datasets=tuple(_SIDES),
    convert=convert,
    forms=(frozenset({"chosen", "rejected"}),),
    hub={name: HubDataset("Anthropic/hh-rlhf", folder=name) for name in _SUBSETS},
    drawn_by=_pair,
)
