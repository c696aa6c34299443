"""Text cleaning: what it changes in a text, and what it keeps."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.data.text_cleaning import clean


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  a\r\nb\rc\n", "a\nb\nc"),
        ("a\u2028b\u2029c", "a\nb\nc"),
        ("a\0b\x07\x1b[0m\x7fc", "ab[0mc"),
        ("a\tb", "a\tb"),
        ("it\x92s\x85", "it\u2019s\u2026"),  # 0x92 and 0x85 of Windows-1252 read as Latin-1
        ("a\x81b", "ab"),  # not in Windows-1252
        ("\ud83d\ude00", "\U0001f600"),  # a pair in two halves is its character
        ("a\ud83db", "a\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("Caf\u00e9 \u4f60\u597d </s> [INST] {{x}} [bold]", None),
        ("zero\u200bwidth \u202etrick", None),
        ("", ""),
    ],
)
def test_clean(text: str, kept: str | None) -> None:
    assert clean(text) == (text if kept is None else kept)


ANY = st.text(st.characters() | st.characters(categories=["Cs", "Cc"]))


@given(ANY)
def test_what_is_left_can_be_written_and_read_by_line_and_is_left_alone(text: str) -> None:
    kept = clean(text)
    assert kept.encode("utf-8").decode("utf-8") == kept
    assert clean(kept) == kept
    kinds = {unicodedata.category(sign) for sign in kept if sign not in "\n\t"}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_letters_numbers_and_marks_stay(text: str) -> None:
    assert clean(text) == text
