"""Cleans the text of every imported conversation. No other change is made to it.

line ends        CR LF, CR, U+2028 and U+2029 become LF
C1 controls      become the Windows-1252 character that was decoded wrongly,
                 so that 0x92 is an apostrophe again
other controls   are removed, including NUL; tab and LF stay
lone surrogates  become U+FFFD, because UTF-8 cannot encode them; pairs become their character
white space      is removed from both ends of a message
"""

from __future__ import annotations

import re

_LINE_END = re.compile("\r\n?|[\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Clean a text. Cleaning a clean text changes nothing."""
    if text.isascii() and text.isprintable():  # a fast path for most texts
        return text.strip()
    text = _LINE_END.sub("\n", text)
    text = _CONTROL.sub(_windows, text)
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.strip()


def _windows(match: re.Match[str]) -> str:
    code = ord(match[0])
    # Five C1 codes have no Windows-1252 character. ASCII controls would decode to themselves.
    return bytes([code]).decode("cp1252", "ignore") if code >= 0x80 else ""
