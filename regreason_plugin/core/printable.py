"""Text from data, made harmless for a terminal and for a message of one line."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with U+FFFD for each unprintable character.

    Such characters could move the cursor, end the line, or change colours or the writing direction.
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def quoted(text: str, longest: int) -> str:
    """The start of a text, printable, with each white space as one space.

    Args:
        text: The text.
        longest: The largest number of characters to return.
    """
    return printable(" ".join(text[: 20 * longest].split()))[:longest]
