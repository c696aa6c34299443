"""The summary of a table by `regreason task new`: lengths, and the order of the labels."""

from __future__ import annotations

import shlex
import statistics
from pathlib import Path

import pytest
from helpers.labelled_tables import LABELS, write_answers
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.prompt import TARGET_DELIMITER, render_target
from regreason_plugin.core.task_file import Columns, Data
from regreason_plugin.data.labelled_table import read_table
from regreason_plugin.task.label_order import csv_line, declared_order, inferred_order
from regreason_plugin.task.table_summary import lengths as lengths_of
from regreason_plugin.task.table_summary import local_tokenizer, summarise


@pytest.mark.parametrize(
    ("found", "labels", "ordinal", "said"),
    [
        ("3 1 2", "1 2 3", True, "integers from 1 to 3"),
        ("0 -1 1", "-1 0 1", True, "integers from -1 to 1"),
        ("10 9 8 11", "8 9 10 11", True, "integers from 8 to 11"),
        ("1 3 5", "1 3 5", False, "add --ordinal 1,3,5"),
        ("10 9.5 1", "1 9.5 10", False, "add --ordinal 1,9.5,10"),
        ("01 02 03", "01 02 03", False, "add --ordinal 01,02,03"),
        ("high Low medium", "Low medium high", False, "add --ordinal Low,medium,high"),
        ("good bad ugly", "bad good ugly", False, "treated as names"),
        ("b A c", "A b c", False, "treated as names"),
        ("1 0", "0 1", False, "second, '1', as the positive one"),
        ("yes no", "no yes", False, "second, 'yes', as the positive one"),
    ],
)
def test_only_integers_in_a_row_are_taken_for_a_scale(
    found: str, labels: str, ordinal: bool, said: str
) -> None:
    order = inferred_order(set(found.split()))
    assert (order.labels, order.ordinal) == (tuple(labels.split()), ordinal)
    assert said in order.why


def test_a_hint_can_be_typed() -> None:
    hint = inferred_order({"very low", "high", "low"}).why
    (typed,) = shlex.split(hint.partition("--ordinal")[2])
    assert declared_order(typed, {"very low", "high", "low"}).labels == ("very low", "low", "high")


def test_the_order_that_is_given_is_kept() -> None:
    order = declared_order("so, low,high", {"low", "high", "so"})
    assert (order.labels, order.ordinal) == (("so", "low", "high"), True)
    assert declared_order(csv_line(LABELS), set(LABELS)).labels == LABELS


@pytest.mark.parametrize(
    ("given_text", "said"),
    [
        ("low,hihg", "names 'hihg', a label that no row has; did you mean 'high'"),
        ("low", "leaves out 'high'"),
        ("low,high,low", "names 'low' twice"),
    ],
)
def test_the_order_that_is_given_has_to_name_all_labels(given_text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        declared_order(given_text, {"low", "high"})


@given(st.lists(st.text("ab,\"' ", min_size=1).map(str.strip).filter(bool), unique=True))
def test_any_labels_can_be_given_in_an_order(labels: list[str]) -> None:
    if labels:
        assert declared_order(csv_line(labels), set(labels)).labels == tuple(labels)


def test_lengths_and_what_is_too_long(tmp_path: Path, tiny_model: Path) -> None:
    data = Data(path=write_answers(tmp_path))
    columns = Columns(text="text", label="verdict", explanation="why")
    tokenizer = local_tokenizer(str(tiny_model))
    assert tokenizer is not None
    assert tokenizer.window == 2048
    rows = []
    seen = summarise(data, columns, tokenizer.length, lambda: rows.append(1))
    assert len(rows) == seen.counts.kept == 120

    records = list(read_table(data, columns, type(seen.counts)()))
    words = [len(record.text.split()) for record in records]
    assert lengths_of(seen.words) == (statistics.median_high(words), sorted(words)[114], max(words))

    # A tokenizer of bytes has no tokens across parts, so their lengths add up to the whole.
    prompt, labels = "{text}\n\nRight or wrong?\nAnswer:", ("right", "wrong")
    whole = []
    for record in records:
        target = render_target("right", record.explanation or "", "label_first")
        text = prompt.replace("{text}", record.text) + TARGET_DELIMITER + target
        whole.append(tokenizer.length(text) + 2)
    limit = statistics.median_low(whole)
    expected = sum(length > limit for length in whole)
    assert 0 < expected < 120
    found = seen.too_long(prompt, labels, tokenizer.length, limit)
    near = sum(abs(length - limit) <= 3 for length in whole)
    assert abs(found - expected) <= near
    assert seen.too_long(prompt, labels, tokenizer.length, max(whole) + 3) == 0
    assert seen.too_long(prompt, labels, tokenizer.length, min(whole) - 4) == 120


def test_texts_of_one_or_two_words_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,1\na b,2\na b c,1\na  b\td e,2\n")
    seen = summarise(Data(path=path), Columns(text="text", label="label"), None, lambda: None)
    assert (seen.near_empty, list(seen.words), list(seen.tokens)) == (2, [1, 2, 3, 4], [])


def test_a_model_that_is_not_here_measures_nothing(tmp_path: Path) -> None:
    assert local_tokenizer(str(tmp_path)) is None
    assert local_tokenizer("nobody/nothing") is None
