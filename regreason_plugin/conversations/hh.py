r"""HH-RLHF: pairs of a chosen and a rejected conversation.

Each side is one string, its turns marked by ``\n\nHuman:`` and ``\n\nAssistant:``. Seen
in the real files and kept as they are: two turns of one role in a row, empty turns,
histories that differ within a pair. The response is what follows the last
``\n\nAssistant:``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from regreason_plugin.conversations.groups import conversation_id, first_user_turn_group
from regreason_plugin.errors import UserError
from regreason_plugin.jsonl import read_objects
from regreason_plugin.schema import Conversation, Turn

HUB_ID = "Anthropic/hh-rlhf"
SUBSETS = ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")
SIDES = {"hh_chosen": "chosen", "hh_rejected": "rejected"}

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def parse_turns(text: str) -> list[Turn]:
    """Split one side of a pair into its turns.

    Raises:
        ValueError: It starts with something else than a turn.
    """
    head, *rest = _TURN.split(text)
    if head.strip():
        raise ValueError(f"does not start with a turn: {head.strip()[:40]!r}")
    return [
        Turn.model_validate({"role": _ROLES[speaker], "content": content.strip()})
        for speaker, content in zip(rest[::2], rest[1::2], strict=True)
    ]


def import_hh(
    dataset: str, rows: Iterator[tuple[str, int, dict[str, Any]]], skipped: Counter[str]
) -> Iterator[Conversation]:
    """Turn pairs into conversations of ``hh_chosen`` or ``hh_rejected``.

    Args:
        dataset: Which side.
        rows: The pairs, each with the name and the line of where it stands.
        skipped: Counts, by reason, the pairs that hold nothing to rate.

    Raises:
        UserError: A row is no pair of texts.
    """
    side = SIDES[dataset]
    seen: set[str] = set()
    for source, line, pair in rows:
        text = pair.get(side)
        if not isinstance(text, str):
            raise UserError(
                "is not a text; HH-RLHF rows have the texts 'chosen' and 'rejected'",
                path=source,
                line=line,
                field=side,
            )
        try:
            turns = parse_turns(text)
        except ValueError as error:
            raise UserError(str(error), path=source, line=line, field=side) from None
        if not any(turn.role == "user" and turn.content for turn in turns):
            skipped["nobody asks anything"] += 1
            continue
        name = conversation_id(dataset, turns, None)
        if name in seen:
            skipped["stands in the file twice"] += 1
            continue
        try:
            conversation = Conversation(
                id=name, dataset=dataset, group=first_user_turn_group(turns), conversation=turns
            )
        except ValidationError:
            # The schema has two reasons left: it ends on the user, or on an empty response.
            skipped["no response at its end"] += 1
            continue
        seen.add(name)
        yield conversation


def local_pairs(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The pairs of a ``.jsonl`` or ``.jsonl.gz`` file."""
    return ((str(path), line, value) for line, _, value in read_objects(path))


def hub_pairs(subset: str, split: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The pairs of one subset on the Hub.

    Raises:
        UserError: The Hub cannot be reached, or has no such subset.
    """
    from datasets import load_dataset

    name = f"{HUB_ID}/{subset}/{split}"
    try:
        pairs = load_dataset(HUB_ID, data_dir=subset, split=split)
    except Exception as error:  # datasets raises a dozen unrelated types here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot be loaded from the Hub ({reason}); download the file and name it with --path",
            path=name,
        ) from error
    return ((name, number, dict(pair)) for number, pair in enumerate(pairs, start=1))
