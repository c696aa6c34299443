"""Parts of the page: numbers, charts, and text that never becomes markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.comparison_example import ARMS, HOSTILE, disagreements, example
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.comparison.comparison import Gap
from regreason_plugin.core.numbers import signed
from regreason_plugin.render.page import code_spans, embedded, write_page
from regreason_plugin.render.page.charts import THEME, charts
from regreason_plugin.render.page.view import share_kept, typeset

HOSTILE_NAME = "".join(HOSTILE)


def test_numbers_have_a_minus_as_wide_as_a_plus() -> None:
    assert typeset(signed(-0.0204)) == "\N{MINUS SIGN}0.020"
    assert typeset(signed(None)) == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (Gap(value=0.6, kind="between", low=0.2, high=1.3), ("0.60", "0.20 to 1.30")),
        (
            Gap(value=2.0, kind="outside", low=-0.5, high=1.3),
            ("2.00", "unbounded: \N{MINUS SIGN}0.50 or less, or 1.30 or more"),
        ),
        (
            Gap(value=0.6, kind="everything", low=None, high=None),
            ("0.60", "unbounded: any share is possible"),
        ),
        (Gap(value=None, kind="between", low=None, high=None), ("\N{EN DASH}", "undefined")),
    ],
)
def test_the_share_of_a_gain_in_words(gap: Gap, words: tuple[str, str]) -> None:
    assert share_kept(gap) == words


def test_every_chart_is_a_part_of_the_page_and_says_what_it_shows() -> None:
    names = ["explanation", HOSTILE_NAME, "$x$ & <b>"]
    one = example(names)
    one = one.model_copy(update={"layers": {HOSTILE_NAME: one.layers["matrix_entropy"]}})
    drawn = [
        chart
        for section in charts(one).values()
        for chart in (section.values() if isinstance(section, dict) else [section])
    ]
    assert len(drawn) == 3 + len(names) + (1 + len(names)) + 1 + 1 + 2
    # Parsing all charts as one document fails if a name became markup.
    page = ElementTree.fromstring(f"<page>{''.join(drawn)}</page>")
    elements = list(page.iter())
    assert {e.tag for e in elements} <= {
        *("page", "svg", "title", "desc", "defs", "clipPath", "g", "path", "rect", "use", "text"),
    }
    # The page's policy forbids inline styles and loading anything.
    attributes = [item for e in elements for item in e.items()]
    assert not [key for key, _ in attributes if key == "style" or key.startswith(("on", "{"))]
    ids = [value for key, value in attributes if key == "id"]
    assert len(set(ids)) == len(ids)
    links = [value for key, value in attributes if key == "href"]
    clips = [value for key, value in attributes if key == "clip-path"]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert {clip[5:-1] for clip in clips} <= set(ids)
    # Everything is drawn in the page's colours, which both themes define.
    colours = {value for key, value in attributes if key in {"fill", "stroke"}}
    assert colours <= {"none", *THEME.values()}
    said = [(svg[0].text, svg[1].text) for svg in page]
    assert said[2 + 1][0] == f"Differences in accuracy of {HOSTILE_NAME}"
    assert f"Reliability of {HOSTILE_NAME}" in [title for title, _ in said]
    for title, text in said:
        assert title
        assert text
        assert "eliability" in title + text or "label_only" in text
    assert all(svg.get("role") == "img" for svg in page)
    assert all(text.text and text.text.strip() for text in page.iter("text"))


def test_the_texts_of_a_chart_are_the_names_in_their_places() -> None:
    drawn = charts(example())
    texts = {
        key: [text.text for text in ElementTree.fromstring(chart).iter("text")]
        for key, chart in drawn["forests"].items()
    }
    assert list(texts) == ARMS
    for shown in texts.values():
        assert shown[-1 - 18 : -1] == [
            f"{one.dataset}, {one.axis_title}" for one in example().settings
        ]
        assert shown[-1] == "pooled"
    legend = ElementTree.fromstring(drawn["layers_legend"])
    shown = [text.text for text in legend.iter("text")]
    assert shown == ["label_only", *ARMS, "95 % interval", "middle blocks"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", [(False, "plain")]),
        ("", []),
        ("`a` keeps `b`.", [(True, "a"), (False, " keeps "), (True, "b"), (False, ".")]),
        ("`` a`b `` is odd", [(True, "a`b"), (False, " is odd")]),
        ("a ` alone", [(False, "a ` alone")]),
    ],
)
def test_backticks_of_a_sentence(text: str, parts: list[tuple[bool, str]]) -> None:
    assert code_spans(text) == parts


@given(st.text())
def test_cutting_a_sentence_loses_nothing_but_backticks_and_spaces(text: str) -> None:
    joined = "".join(part for _, part in code_spans(text))
    assert re.sub(r"[`\s]", "", joined) == re.sub(r"[`\s]", "", text)


@given(st.recursive(st.text() | st.integers(), st.lists, max_leaves=8))
def test_embedded_data_is_read_back_and_is_no_markup(value: object) -> None:
    text = str(embedded([value, *HOSTILE, "\u2028\u2029"]))
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == [value, *HOSTILE, "\u2028\u2029"]


def test_half_a_surrogate_pair_does_not_break_the_file(tmp_path: Path) -> None:
    (row,) = disagreements(1)
    page = tmp_path / "report.html"
    write_page(example(), [replace(row, prompt="broken \ud83d emoji")], 1, page)
    assert "broken ? emoji" in page.read_bytes().decode("utf-8")
