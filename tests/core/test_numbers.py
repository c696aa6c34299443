"""Numbers as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.core.numbers import ends, number, p_value, signed


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
    assert signed(value) == text
    assert signed(None) == "-"


def test_zero_has_the_sign_that_is_asked_for() -> None:
    assert [signed(value, 4, zero="+") for value in (0.0, -0.0, -0.00001)] == ["+0.0000"] * 3
    assert signed(-0.0001, 4, zero="+") == "-0.0001"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0009, "< 0.001"), (0.001, "0.001"), (0.25, "0.250")]
)
def test_a_small_p_is_said_to_be_smaller(value: float | None, text: str) -> None:
    assert p_value(value) == text


def test_an_interval_has_two_ends_or_none() -> None:
    assert ends(0.48, 0.5441) == "0.480 to 0.544"
    assert ends(-0.01, 0.02, sign=True) == "-0.010 to +0.020"
    assert ends(None, 0.02) == ends(0.02, None) == ""


@given(st.floats(-1e3, 1e3))
def test_printed_numbers_read_back(value: float) -> None:
    for form in (number, signed):
        read = float(form(value))
        assert read == pytest.approx(value, abs=0.0005 + 1e-9)
