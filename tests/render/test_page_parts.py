"""What the page is put together from: numbers, charts, and text that is no markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.comparison_example import HOSTILE, disagreements, example
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from regreason_plugin.compare.comparison import Bin, Curve, Gap, Interval
from regreason_plugin.render.page import charts, code_spans, embedded, numbers, write_page

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE_NAME = "".join(HOSTILE)


def _drawn(svg: Markup) -> ElementTree.Element:
    """Parse it, which fails where a name was taken as markup."""
    return ElementTree.fromstring(svg)


def _by_class(drawn: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [e for e in drawn.iter() if name in e.get("class", "").split()]


def _points(line: ElementTree.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0204, "+0.020"),
        (-0.0204, "-0.020"),
        (0.0, "0.000"),
        (-0.0004, "0.000"),
        (0.0004, "0.000"),
    ],
)
def test_a_difference_has_a_sign_and_zero_has_none(value: float, text: str) -> None:
    assert numbers.signed(value).replace("\N{MINUS SIGN}", "-") == text
    assert numbers.signed(None) == "\N{EN DASH}"


@given(st.floats(-1e3, 1e3))
def test_printed_numbers_read_back(value: float) -> None:
    for form in (numbers.plain, numbers.signed):
        read = float(form(value).replace("\N{MINUS SIGN}", "-"))
        assert read == pytest.approx(value, abs=0.0005 + 1e-9)


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
    assert numbers.share(gap) == words


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4), st.integers(2, 8))
def test_ticks_are_few_round_and_within_the_axis(low: float, width: float, about: int) -> None:
    found = numbers.ticks(low, low + width, about)
    assert all(low - 1e-6 <= tick <= low + width + 1e-6 for tick in found)
    assert 1 <= len(found) <= about + 2
    for step in (b - a for a, b in pairwise(found)):
        assert float(f"{step:.3e}".split("e")[0]) in (1.0, 2.0, 5.0)


def test_an_interval_lies_where_its_numbers_are() -> None:
    mark = _drawn(charts.forest_mark(Interval(value=0.02, low=-0.01, high=0.05), (-0.1, 0.1)))
    (zero,), (line,), (point,) = (_by_class(mark, name) for name in ("zero", "range", "point"))
    assert zero.get("x1") == "50.00%"
    assert (line.get("x1"), point.get("cx"), line.get("x2")) == ("45.00%", "60.00%", "75.00%")
    assert _by_class(mark, "clear") == []
    for low, high in [(0.01, 0.05), (-0.05, -0.01)]:
        apart = charts.forest_mark(Interval(value=0.0, low=low, high=high), (-0.1, 0.1))
        assert len(_by_class(_drawn(apart), "clear")) == 1
    nothing = _drawn(charts.forest_mark(Interval(value=None), (-0.1, 0.1)))
    assert [e.get("class") for e in nothing] == ["zero"]


def test_reliability_bars_are_as_high_as_the_accuracy_and_count() -> None:
    bins = [
        Bin(low=0.0, high=0.5, count=0, confidence=None, accuracy=None),
        Bin(low=0.5, high=0.75, count=300, confidence=0.6, accuracy=0.5),
        Bin(low=0.75, high=1.0, count=600, confidence=0.9, accuracy=1.0),
    ]
    drawn = _drawn(charts.reliability(HOSTILE_NAME, bins))
    assert drawn[0].text == f"Reliability of {HOSTILE_NAME}"
    bars = [float(bar.get("height", "")) for bar in _by_class(drawn, "bar")]
    assert len(bars) == 4
    half, whole, few, many = bars
    assert half / whole == pytest.approx(0.5, abs=0.01)
    assert few / many == pytest.approx(0.5, abs=0.01)
    said = [bar[0].text or "" for bar in _by_class(drawn, "bar")]
    assert ["300 answers" in text for text in said] == [True, False, True, False]
    stems = _by_class(drawn, "off")
    # Down from the diagonal is overconfident.
    assert [float(s.get("y1", "")) > float(s.get("y2", "")) for s in stems] == [True, False]


def test_layers_are_drawn_to_scale_and_gaps_stay_gaps() -> None:
    values = [0.2, 0.5, None, 0.4, 0.8]
    curve = [
        Interval(value=v, low=None if v is None else v - 0.1, high=None if v is None else v + 0.1)
        for v in values
    ]
    plain = [Interval(value=v) for v in (0.3, 0.3, 0.6)]
    names = ["base", HOSTILE_NAME]
    drawn = _drawn(charts.layers("t", "u", {"base": plain, HOSTILE_NAME: curve}, names))
    lines = [e for e in _by_class(drawn, "line") if e.tag.endswith("polyline")]
    assert [line[0].text for line in lines] == ["base", HOSTILE_NAME, HOSTILE_NAME]
    assert [line.get("class") for line in lines] == ["line c0 d0", "line c1 d1", "line c1 d1"]
    base, first, second = map(_points, lines)
    assert (len(base), len(first), len(second)) == (3, 2, 2)
    # One scale for all: pixels by unit, along both axes.
    down = (first[0][1] - first[1][1]) / 0.3
    assert down > 0
    assert (base[1][1] - base[2][1]) / 0.3 == pytest.approx(down, abs=0.7)
    assert first[0][1] - second[1][1] == pytest.approx(0.6 * down, abs=0.2)
    assert first[0][0] == base[0][0]
    assert second[1][0] == base[2][0]
    assert first[1][0] - first[0][0] == pytest.approx((base[2][0] - base[0][0]) / 4, abs=0.2)
    # Only what has an interval has a band; it is 0.2 high.
    bands = [_points(band) for band in _by_class(drawn, "band")]
    assert [len(band) for band in bands] == [4, 4]
    assert bands[0][0][1] - bands[0][3][1] == pytest.approx(0.2 * down, abs=0.2)


def test_learning_curves_share_their_scales_and_stand_before_the_baseline() -> None:
    curves = {
        "base": [Curve(seed=1, tokens=[100, 200], accuracy=[0.2, 0.4])],
        "arm": [
            Curve(seed=1, tokens=[100, 400], accuracy=[0.2, 0.8]),
            Curve(seed=None, tokens=[], accuracy=[]),
        ],
    }
    drawn = _drawn(charts.learning("arm", 1, curves, "base"))
    lines = [e for e in _by_class(drawn, "line") if e.tag.endswith("polyline")]
    assert [line[0].text for line in lines] == ["base, seed 1", "arm, seed 1"]
    assert len(_by_class(drawn, "ghost")) == 1
    base, arm = map(_points, lines)
    assert base[0] == arm[0]
    assert (arm[1][0] - arm[0][0]) / (base[1][0] - base[0][0]) == pytest.approx(3, abs=0.01)
    assert (arm[1][1] - arm[0][1]) / (base[1][1] - base[0][1]) == pytest.approx(3, abs=0.01)
    alone = _drawn(charts.learning("base", 0, curves, "base"))
    assert _by_class(alone, "ghost") == []


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
