"""AmazonQA in its three formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.raw_datasets import imported, qar_row, texts, write_lines, write_parquet

from regreason_plugin.core.errors import UserError
from regreason_plugin.data.groups import text_group


def one(tmp_path: Path, row: dict[str, Any]) -> Any:
    (conversation,), done = imported("amazon_qa", write_lines(tmp_path / "in.jsonl", [row]))
    assert not done.left_out
    return conversation


def test_the_original_format(tmp_path: Path) -> None:
    got = one(tmp_path, qar_row("Is it 5&#34; &amp; red?", ("It is 5&quot;.", [2, 3])))
    assert texts(got) == [("user", 'Is it 5" & red?'), ("assistant", 'It is 5".')]
    assert got.group == "product-B000AA0001"
    assert got.context is None
    assert got.meta == {
        "asin": "B000AA0001",
        "category": "Home_and_Kitchen",
        "question_type": "descriptive",
        "helpful_votes": 2,
        "is_answerable": True,
    }


def test_entities_are_unescaped_once(tmp_path: Path) -> None:
    got = one(tmp_path, {"query": "q &amp;lt;b&amp;gt;?", "answer": "a"})
    assert got.conversation[0].content == "q &lt;b&gt;?"


def test_the_answer_with_most_helpful_votes_is_taken(tmp_path: Path) -> None:
    answers = [("few", [1, 1]), ("most", [3, 9]), ("none", [0, 0]), ("", [9, 9])]
    for order in (answers, answers[::-1]):
        got = one(tmp_path, qar_row("q?", *order))
        assert got.conversation[-1].content == "most"
        assert got.meta["answers"] == 3  # that say something


def test_among_equals_the_order_does_not_decide_nor_does_the_alphabet(tmp_path: Path) -> None:
    answers = [f"answer {number}" for number in range(9)]
    chosen = set()
    for order in (answers, answers[::-1], answers[4:] + answers[:4]):
        got = one(tmp_path, {"query": "q?", "pos": order})
        chosen.add(got.conversation[-1].content)
        voted = one(tmp_path, qar_row("q?", *((text, [1, 1]) for text in order)))
        chosen.add(voted.conversation[-1].content)
    # In a shell: for n in 0 1 2 3 4 5 6 7 8; do printf "answer $n" | sha256sum; done | sort
    assert chosen == {"answer 6"}


@pytest.mark.parametrize("pos", ["Yes.", ["Yes."], ["", "Yes."]])
def test_pos_is_a_text_or_a_list(tmp_path: Path, pos: Any) -> None:
    got = one(tmp_path, {"query": "Does IT fit?", "pos": pos})
    assert texts(got) == [("user", "Does IT fit?"), ("assistant", "Yes.")]
    assert got.group == text_group("does it fit")


@pytest.mark.parametrize(
    ("change", "meta"),
    [
        ({"is_answerable": False}, {"is_answerable": False}),
        ({"is_answerable": 0}, {"is_answerable": False}),
        ({"is_answerable": None}, {}),
        ({"questionType": "NA"}, {"question_type": None, "is_answerable": True}),
        ({"questionType": "yesno"}, {"question_type": "yesno", "is_answerable": True}),
        ({"category": None}, {"category": None, "is_answerable": True}),
        ({"category": "A\ud83d\0B"}, {"category": "A\ufffdB", "is_answerable": True}),
    ],
)
def test_meta(tmp_path: Path, change: dict[str, Any], meta: dict[str, Any]) -> None:
    row = qar_row("q?", ("a", [0, 0]), **change)
    del row["qid"]  # sometimes missing
    got = one(tmp_path, row)
    usual = {
        "asin": "B000AA0001",
        "category": "Home_and_Kitchen",
        "question_type": "descriptive",
    }
    expected = {**usual, **meta}
    assert got.meta == {name: value for name, value in expected.items() if value is not None}


def test_the_type_of_the_answer_that_is_taken(tmp_path: Path) -> None:
    row = qar_row("q?", ("Yes it does", [2, 2]), ("No", [0, 1]), questionType="yesno")
    row["answers"][0]["answerType"], row["answers"][1]["answerType"] = "Y", "N"
    assert one(tmp_path, row).meta["answer_type"] == "Y"


@pytest.mark.parametrize("asin", [None, "", "  ", 5])
def test_without_a_product_the_question_is_the_group(tmp_path: Path, asin: Any) -> None:
    got = one(tmp_path, qar_row("Is it RED?", ("Yes.", [0, 0]), asin=asin))
    assert got.group == text_group("is it red")


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    got = one(tmp_path, {"query": "Nice \ud83d?", "answer": "Yes \ude00\ud83d\ude00."})
    assert texts(got) == [("user", "Nice \ufffd?"), ("assistant", "Yes \ufffd\U0001f600.")]


def test_what_is_broken_is_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        {"query": "q?", "answer": "good"},
        {"query": "q?", "answer": " &nbsp; "},
        {"query": "", "answer": "a"},
        {"query": 5, "answer": "a"},
        {"query": "q?", "answer": None},
        {"query": "q?", "pos": [1]},
        {"query": "q?", "pos": []},
        qar_row("q?"),
        qar_row("q?", ("a", [0, 0]), answers="none"),
        qar_row("q?", ("a", [0, 0]), answers=["a"]),
        qar_row("q?", ("a", [0, 0]), questionText=None),
        '{"query": "half',
        "[1]",
        {"query": "q?", "answer": "good"},
    ]
    conversations, done = imported("amazon_qa", write_lines(tmp_path / "in.jsonl", rows))
    assert len(conversations) == 1
    assert done.left_out == {
        "no response at the end": 3,
        "no message from the user": 1,
        "query is not a text": 1,
        "answer is missing": 1,
        "pos is not a text": 1,
        "answers is not a list": 1,
        "answers is not an object with answerText": 1,
        "questionText is missing": 1,
        "not a JSON object": 2,
        "duplicate conversation": 1,
    }


@pytest.mark.parametrize("helpful", [None, [], ["2", 3], "2", [True, 1], [-1, 2], {"up": 1}])
def test_odd_votes_are_no_votes(tmp_path: Path, helpful: Any) -> None:
    row = qar_row("q?", ("a", [0, 0]), ("b", [1, 1]))
    row["answers"][0]["helpful"] = helpful
    assert one(tmp_path, row).conversation[-1].content == "b"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"query": "q?", "answer": 3}, r"in.jsonl, line 2, field answer: is not a text \(got 3\)"),
        ({"query": "q?", "answer": ""}, "in.jsonl, line 2, field answer: no response"),
        (
            qar_row("q?", ("a", [0, 0]), answers=[{"answerText": 1}]),
            "line 2, field answers.0.answerText: is not a text",
        ),
        ('{"query": "q', "in.jsonl, line 2: not a JSON object"),
    ],
)
def test_strict_names_the_place(tmp_path: Path, row: Any, expected: str) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"query": "q?", "answer": "a"}, row])
    with pytest.raises(UserError, match=expected):
        imported("amazon_qa", path, strict=True)
    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]


def test_parquet_of_each_format(tmp_path: Path) -> None:
    pair = write_parquet(tmp_path / "pair.parquet", [{"query": "q?", "answer": "a"}] * 2)
    pos = write_parquet(tmp_path / "pos.parquet", [{"query": "q?", "pos": ["a"]}])
    qar = write_parquet(tmp_path / "qar.parquet", [qar_row("q?", ("a", [1, 2]), asin=None)])
    ids = set()
    for path in (pair, pos, qar):
        (got,), _ = imported("amazon_qa", path)
        ids.add((got.id, got.group))
    assert len(ids) == 1
