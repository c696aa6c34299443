"""A key is removed from a server's words in whatever way they spell it."""

from __future__ import annotations

import base64
import html
import json
import time
from urllib.parse import quote

import pytest

from regreason_plugin.annotate.redaction import Redaction

KEY = "sk-mark/8d1f+2a77&03_Zq"
ESCAPED = "".join(f"\\u{ord(one):04x}" for one in KEY)


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        ESCAPED,
        ESCAPED.upper().replace("\\U", "\\u"),
        json.dumps(json.dumps(ESCAPED))[3:-3],
        KEY.replace("/", "\\/"),
        quote(KEY, safe=""),
        quote(quote(KEY, safe=""), safe=""),
        quote(KEY, safe="").lower().replace("zq", "Zq"),
        html.escape(KEY).replace("&amp;", "&#38;"),
        "".join(f"&#x{ord(one):x};" for one in KEY),
        " ".join(KEY),
        f"{KEY[:4]}\\n{KEY[4:9]}\n  {KEY[9:]}",
        f"{KEY[:4]}\x1b[31m{KEY[4:9]}\\u001b[0m{KEY[9:15]}\u202e{KEY[15:]}",
        f"{KEY[:4]}\\u200b{KEY[4:]}",
    ],
)
def test_a_spelling_is_removed(spelled: str) -> None:
    assert Redaction([KEY])(f"before {spelled} after") == "before [key] after"


@pytest.mark.parametrize("before", ["", "a", "ab", "Bearer ", "user:"])
@pytest.mark.parametrize("after", ["", "x", "xy", "\n"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_removed(before: str, after: str, encode: type[bytes]) -> None:
    encoded = encode(f"{before}{KEY}{after}".encode()).decode()
    kept = Redaction([KEY])(encoded)
    assert "[key]" in kept
    # At most the characters around the key, and those that it shares with them, are left.
    assert len(kept.replace("[key]", "").rstrip("=")) <= 4 * (len(before + after) + 4) // 3


def test_each_long_word_of_a_header_is_a_secret() -> None:
    redaction = Redaction([f"Bearer {KEY}"])
    assert redaction(f"got {KEY}") == "got [key]"
    assert redaction("The Bearer of news.") == "The Bearer of news."


def test_a_longer_secret_is_removed_whole() -> None:
    assert Redaction([KEY, KEY + "-more"])(KEY + "-more") == "[key]"


def test_other_text_stays() -> None:
    text = 'It reads well: 100%, "\\u0041" & sk-mark/8d1f.'
    assert Redaction([KEY])(text) == text
    assert Redaction([])(text) == text


@pytest.mark.parametrize("length", [20, 300, 3_000])
def test_no_part_of_a_key_is_left_where_a_text_is_cut(length: int) -> None:
    key = "Zq7" * (length // 3)
    redaction = Redaction([key])
    for shift in range(0, 3 * length, length // 7):
        assert "Zq7Zq7" not in redaction.start("." * shift + f"{key} " * 400, 300)


def test_the_start_is_one_line_of_printable_characters() -> None:
    start = Redaction([KEY]).start(f"a\x1b[31m\x07b\r\n\u202ec\u2066 {KEY}\x00", 300)
    assert start == "a [31m b c [key]"
    assert Redaction([]).start("x" * 999, 300) == "x" * 300


@pytest.mark.parametrize(
    "text", ["\\" * 20_000, ("s" + "\\n" * 20) * 1_000, KEY[:-1] * 1_000, "%25" * 7_000]
)
def test_no_text_takes_long(text: str) -> None:
    started = time.monotonic()
    Redaction([KEY])(text)
    assert time.monotonic() - started < 2
