"""Text from outside is escaped, and text that is already Markdown stays unchanged."""

from __future__ import annotations

from itertools import pairwise

import pytest
from helpers.comparison_example import HOSTILE
from markdown_it import MarkdownIt

from regreason_plugin.core.markdown import code, escape, plain_text, sentence, table


def cells(text: str) -> list[str]:
    """The cells of a rendered table as readers see them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [
        "".join(child.content for child in inner.children or [])
        for token, inner in pairwise(tokens)
        if token.type in {"th_open", "td_open"}
    ]


def test_a_table_shows_hostile_cells_as_they_are() -> None:
    names = [*HOSTILE, "a|b", "**bold**", "`code`", "# head"]
    text = table([[name, code(name)] for name in names], ["name *x*", "1"], "lr", [["", "a_b_"]])
    assert text.splitlines()[1] == "| :--- | ---: |"
    plain = [" ".join(name.split()) for name in names]
    expected = [one for name in plain for one in (name, name)]
    assert [cell.replace("\\|", "|") for cell in cells(text)] == [
        *("name *x*", "1", *expected, "", "a_b_"),
    ]
    assert text.splitlines()[-1] == r"|  | **a_b\_** |"


def test_the_last_letter_of_the_sides_holds_for_the_other_columns() -> None:
    header = list("abcd")
    rules = [table([], header, sides).splitlines()[1] for sides in ("l", "lr", "llrl")]
    assert rules == [
        "| :--- | :--- | :--- | :--- |",
        "| :--- | ---: | ---: | ---: |",
        "| :--- | :--- | ---: | :--- |",
    ]


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("1. one", r"1\. one"),
        ("- one", r"\- one"),
        ("https://x.example", r"https:\//x.example"),
        ("a_b and _c_", r"a_b and \_c\_"),
    ],
)
def test_plain_text_is_no_list_no_link_and_no_emphasis(text: str, markdown: str) -> None:
    assert plain_text(text) == markdown


def test_backticks_of_a_sentence_of_ours_are_code() -> None:
    assert sentence("`a_` keeps *it* of `b`.") == r"`a_` keeps \*it\* of `b`\."
    assert escape("`a`") == r"\`a\`"
