"""What must stay on one side of a split, and stable ids: both computed from the text."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence

from regreason_plugin.core.records import Turn

_WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """A text without what people write differently without meaning to: case, marks, spaces.

    A text of marks alone (``???``) keeps them, or all such texts would be one.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(folded)) or " ".join(folded.split())


def text_group(text: str) -> str:
    """The group of everything that shares this text, whatever its case and marks."""
    return "text-" + _digest(normalise(text), 16)


def named_group(kind: str, name: str) -> str:
    """The group of everything that belongs to a thing with a name, as a film or a product."""
    return f"{kind}-{name}"


def first_user_turn_group(turns: Sequence[Turn]) -> str:
    """The group of the conversations that start with the same request.

    Both answers of an HH-RLHF pair are in it, and other pairs that ask the same. A
    conversation in which the user says nothing goes by its first message.
    """
    asked = [turn.content for turn in turns if turn.role == "user" and turn.content.strip()]
    said = [turn.content for turn in turns if turn.content.strip()]
    return text_group((asked or said or [""])[0])


def conversation_id(dataset: str, turns: Sequence[Turn], context: str | None = None) -> str:
    """An id by content: the same conversation has the same one in any file and order."""
    # As JSON no text can be mistaken for the border between two messages.
    content = json.dumps([context or "", *([turn.role, turn.content] for turn in turns)])
    return f"{dataset}-{_digest(content, 12)}"


def _digest(text: str, length: int) -> str:
    # Lone surrogates occur in AmazonQA and have no UTF-8.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
