"""Computes groups, which must stay in one split, and stable ids, both from the text."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence

from regreason_plugin.core.records import Turn

_WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """A text without differences in case, punctuation and white space.

    A text of punctuation alone (``???``) keeps it; otherwise all such texts would be equal.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(folded)) or " ".join(folded.split())


def text_group(text: str) -> str:
    """The group of all conversations that share this text, apart from case and punctuation."""
    return "text-" + _digest(normalise(text), 16)


def named_group(kind: str, name: str) -> str:
    """The group of all conversations that belong to a named thing, such as a film or a product."""
    return f"{kind}-{name}"


def first_user_turn_group(turns: Sequence[Turn]) -> str:
    """The group of all conversations that start with the same request.

    Both sides of an HH-RLHF pair are in it, and so are other pairs with the same request. If the
    user says nothing, the first message decides.
    """
    requests = [turn.content for turn in turns if turn.role == "user" and turn.content.strip()]
    messages = [turn.content for turn in turns if turn.content.strip()]
    return text_group((requests or messages or [""])[0])


def conversation_id(dataset: str, turns: Sequence[Turn], context: str | None = None) -> str:
    """An id computed from the content: a conversation has the same id in every file."""
    # In JSON, no text can imitate the boundary between two messages.
    content = json.dumps([context or "", *([turn.role, turn.content] for turn in turns)])
    return f"{dataset}-{_digest(content, 12)}"


def _digest(text: str, length: int) -> str:
    # AmazonQA contains lone surrogates, which strict UTF-8 cannot encode.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
