"""Removing secrets from the texts of a server, in whatever way the server spells them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

from regreason_plugin.core.printable import one_line

# Stands in a text for a secret.
REMOVED = "[key]"
# A shorter secret is a placeholder for a server without keys; an answer may contain it.
SHORTEST = 8
# Characters of a text that are searched for secrets; the rest is dropped.
_SEARCHED = 20_000
# An escape such as ``\u006b`` or ``\\u006b`` takes up to this many characters.
_WIDEST = 12
_COLOUR = r"\[[0-9;]*[A-Za-z]"
# May lie between two characters of a secret: white space, everything outside printable ASCII,
# terminal colours, and the JSON spellings of these.
_BETWEEN = (
    rf"(?:\x1b{_COLOUR}|[^!-~]|\\{{1,8}}(?:u00[01]|x[01])[0-9a-fA-F](?:{_COLOUR})?"
    r"|\\{1,8}u[2fF][0-9a-fA-F]{3}|\\{1,8}[nrtbf])"
)


class Redaction:
    """Removes secrets from texts.

    A secret is found in plain text; with characters in the spelling of JSON, URLs or HTML; split
    by white space, control characters or line ends; and within base64.

    Args:
        secrets: The secrets. Of a secret with white space, each long word counts as a secret; a
            short one, such as "Bearer", may stand in any text.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        words = {
            word
            for secret in secrets
            for word in secret.split()
            if len(word) >= SHORTEST or word == secret
        }
        # The longest first, so that no secret hides the rest of one that begins with it.
        ordered = sorted(words, key=lambda word: (-len(word), word))
        ordered += [part for word in ordered if len(word) >= SHORTEST for part in _base64(word)]
        spellings = "|".join(map(_spellings, ordered))
        # Every spelling begins with one of these; a search that looks at them first is faster.
        first = re.escape("".join({"\\", "%", "&", "-", "_", *(part[0] for part in ordered)}))
        self._pattern = re.compile(f"(?=[{first}])(?:{spellings})") if ordered else None
        self._widest = 2 * _WIDEST * max(map(len, words), default=0)

    def __call__(self, text: str) -> str:
        """The whole text without the secrets."""
        return self._pattern.sub(REMOVED, text) if self._pattern else text

    def start(self, text: str, length: int) -> str:
        """The start of a text without the secrets, on one line of printable characters.

        Args:
            text: The text.
            length: Number of characters to return at most.
        """
        searched = self(text[: _SEARCHED + self._widest])
        if len(text) > _SEARCHED + self._widest:
            # The last secret may be cut off, and is then not found.
            searched = searched[: max(0, len(searched) - self._widest)]
        return one_line(searched)[:length]


def _spellings(word: str) -> str:
    return f"{_BETWEEN}*".join(map(_character, word))


def _character(character: str) -> str:
    """A pattern for a character of printable ASCII in plain text, JSON, a URL or HTML."""
    code = ord(character)
    either = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in f"{code:02x}")
    also = {"+": "-", "/": "_"}.get(character, "")
    plain = f"[{re.escape(character + also)}]" if also else re.escape(character)
    # A backslash before the character itself is the short escape of JSON, as in ``\/``.
    short = "" if character.isalnum() else f"|{plain}"
    escaped = rf"\\{{1,8}}(?:u00{either}|x{either}{short})"
    return rf"(?:{plain}|{escaped}|%(?:25)*{either}|&#(?:0*{code}|[xX]0*{either});)"


def _base64(word: str) -> list[str]:
    """The parts of base64 that a word determines, wherever it begins in the encoded text."""
    parts = []
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + word.encode()).decode()
        first = -(-before * 8 // 6)
        parts.append(encoded[first : (before + len(word)) * 8 // 6])
    return parts
