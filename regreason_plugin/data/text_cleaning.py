"""What is done to the text of every imported conversation, and nothing else is.

line ends        CR LF, CR and U+2028, U+2029 become LF
C1 controls      become the Windows-1252 character they were read wrongly from,
                 so that an apostrophe saved as 0x92 is an apostrophe again
other controls   go, NUL among them; tab and LF stay
lone surrogates  become U+FFFD, as they have no UTF-8; pairs become their character
the ends         of a message lose their spaces and line ends
"""

from __future__ import annotations

import re

_LINE_END = re.compile("\r\n?|[\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """A text of a dataset as it is kept; doing it twice changes nothing more."""
    if text.isascii() and text.isprintable():  # most of them
        return text.strip()
    text = _LINE_END.sub("\n", text)
    text = _CONTROL.sub(_windows, text)
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.strip()


def _windows(match: re.Match[str]) -> str:
    code = ord(match[0])
    # Five codes have no character; the ASCII controls decode to themselves.
    return bytes([code]).decode("cp1252", "ignore") if code >= 0x80 else ""
