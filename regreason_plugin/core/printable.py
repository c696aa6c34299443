"""Text from data, made harmless for a terminal and for a message of one line."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with U+FFFD for each unprintable character.

    Such characters could move the cursor, end the line, or change colours or the writing direction.
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def one_line(text: object, longest: int | None = None) -> str:
    """A text on one line, without control characters and marks of writing direction.

    Args:
        text: The text.
        longest: The largest number of characters to return; None for all.
    """
    # A start that is long enough, because a server may send megabytes.
    start = str(text) if longest is None else str(text)[: 20 * longest]
    return " ".join("".join(c if c.isprintable() else " " for c in start).split())[:longest]
