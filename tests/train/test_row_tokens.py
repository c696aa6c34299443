"""Rows as token ids, and tokenizers that cannot make the right ids."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.prompt import ORDERS, Order, neutralise, one_line, render_target
from regreason_plugin.train.row_tokens import RowTokenizer, special_tokens, unknown_to_neutralise


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.text(min_size=1).map(lambda text: neutralise(text)[0].strip()).filter(bool),
    label=st.integers(1, 5),
    explanation=st.text().map(one_line),
    order=st.sampled_from(ORDERS),
)
def test_any_text_keeps_its_tokens(
    tokenizer: Any, prompt: str, label: int, explanation: str, order: Order
) -> None:
    target = render_target(str(label), explanation, order)
    (row,) = RowTokenizer(tokenizer, order).tokenize(["row"], [prompt], [target])
    assert row.input_ids == [*tokenizer.encode(f"{prompt} {target}"), tokenizer.eos_token_id]
    assert row.prompt == len(tokenizer.encode(prompt))
    assert row.labels.count(-100) == row.prompt
    assert row.labels[row.prompt :] == row.input_ids[row.prompt :]


def test_many_rows_are_each_their_own(tokenizer: Any) -> None:
    rows = RowTokenizer(tokenizer, "label_first")
    prompts, targets = ["A:", "A longer one:", "B:"], ["1\nbecause", "2", "3\nit is long"]
    together = rows.tokenize("abc", prompts, targets)
    alone = [rows.tokenize(*row)[0] for row in zip("abc", zip(prompts), zip(targets), strict=True)]
    assert together == alone


def test_a_target_without_a_label_is_refused(tokenizer: Any) -> None:
    rows = RowTokenizer(tokenizer, "explanation_first")
    with pytest.raises(UserError, match="row 'x': no label where order explanation_first has it"):
        rows.tokenize(["x"], ["A:"], ["3\nbecause"])


def test_special_tokens_are_all_that_look_like_it(tokenizer: Any) -> None:
    assert sorted(special_tokens(tokenizer).values()) == sorted(
        ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]
    )
    assert unknown_to_neutralise(tokenizer) == []


def test_added_words_are_text_and_added_markup_is_not(tiny_model: Path) -> None:
    from transformers import AddedToken, AutoTokenizer

    other = AutoTokenizer.from_pretrained(tiny_model)
    other.add_tokens(["covid", "  ", "<h1>", AddedToken("@@", special=True)])
    known = set(special_tokens(other).values())
    assert {"<h1>", "@@"} <= known
    assert not {"covid", "  "} & known
    assert unknown_to_neutralise(other) == ["@@"]
    rows = RowTokenizer(other, "label_first")
    (row,) = rows.tokenize(["x"], ["covid  or not:"], ["3"])
    assert other.convert_tokens_to_ids("covid") in row.input_ids
    with pytest.raises(UserError, match="its text holds '@@', a special token"):
        rows.tokenize(["x"], ["an @@ in the text:"], ["3"])


def test_a_tokenizer_without_an_end_is_refused(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(tiny_model)
    other.eos_token = None
    with pytest.raises(UserError, match="no end-of-text token"):
        RowTokenizer(other, "label_first")


def test_a_permuted_explanation_is_still_a_line_of_its_own() -> None:
    words = one_line("It is fair: Rating: 5, said the User: no").split()
    for seed in range(50):
        permuted = " ".join(random.Random(seed).sample(words, len(words)))
        assert one_line(permuted) == permuted
