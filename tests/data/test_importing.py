"""The parts that all importers share: samples, limits, duplicates and --strict."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from helpers.raw_datasets import hh_row, imported, texts, write_all, write_lines

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import DATASETS


def pairs(count: int) -> list[Any]:
    # Three pairs per request.
    return [hh_row(f"Question {n // 3}?", f"Yes {n}.", f"No {n}.") for n in range(count)]


def test_a_limit_takes_the_first(tmp_path: Path) -> None:
    rows = pairs(20)
    rows.insert(2, {"chosen": "broken"})
    rows.insert(5, "broken, and never reached {")
    conversations, done = imported("hh_chosen", write_lines(tmp_path / "in.jsonl", rows), limit=4)
    assert [texts(one)[-1][1] for one in conversations] == ["Yes 0.", "Yes 1.", "Yes 2.", "Yes 3."]
    assert sum(done.left_out.values()) == 1
    assert done.drawn_from is None


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_sample_goes_by_content_and_seed(tmp_path: Path, dataset: str) -> None:
    source = write_all(tmp_path, 30)[dataset]
    everything, _ = imported(dataset, source, tmp_path / "all")
    samples = [
        imported(dataset, source, tmp_path / "out", limit=12, seed=seed)[0] for seed in (0, 0, 1)
    ]
    assert samples[0] == samples[1]
    assert {one.id for one in samples[0]} != {one.id for one in samples[2]}
    for sample in samples:
        assert len(sample) == 12
        assert all(one in everything for one in sample)
    smaller, done = imported(dataset, source, tmp_path / "out", limit=5, seed=0)
    assert smaller == samples[0][:5]
    assert done.drawn_from == len(everything)
    # A limit above the number of conversations keeps all of them.
    most, _ = imported(dataset, source, tmp_path / "out", limit=999, seed=0)
    assert sorted(one.id for one in most) == sorted(one.id for one in everything)


def test_a_sample_is_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    rows = [*pairs(60), *pairs(9), {"chosen": 3}]
    written = set()
    for seed in range(4):
        random.Random(seed).shuffle(rows)
        path = write_lines(tmp_path / "in.jsonl", rows)
        _, done = imported("hh_rejected", path, tmp_path / "out", limit=20, seed=7)
        written.add((tmp_path / "out").read_bytes())
        assert done.drawn_from == 60
        assert done.left_out == {"duplicate conversation": 9, "chosen is not a text": 1}
    assert len(written) == 1


def test_groups_and_ids_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = pairs(30)
    found = []
    for order in (rows, rows[::-1]):
        conversations, _ = imported("hh_chosen", write_lines(tmp_path / "in.jsonl", order))
        found.append({one.id: one.group for one in conversations})
    assert found[0] == found[1]
    assert len(set(found[0].values())) == 10


def test_every_conversation_is_drawn_as_often_as_any_other(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", pairs(10))
    drawn: dict[str, int] = {}
    for seed in range(300):
        for one in imported("hh_chosen", path, limit=3, seed=seed)[0]:
            drawn[one.id] = drawn.get(one.id, 0) + 1
    # 300 draws with a share of 0.3: 90 expected, standard deviation 7.9.
    assert len(drawn) == 10
    assert all(58 <= count <= 122 for count in drawn.values())


def test_both_sides_of_a_pair_are_in_both_samples(tmp_path: Path) -> None:
    rows = [
        *pairs(90),
        # One side cannot be rated, so neither dataset has the pair.
        *(hh_row(f"Half {n}?", "Yes.", "") for n in range(20)),
        *(hh_row(f"Other half {n}?", "", "No.") for n in range(20)),
        # The histories of the two sides differ from the first turn on.
        *(
            {"chosen": hh_row(f"This {n}?")["chosen"], "rejected": hh_row(f"That {n}?")["rejected"]}
            for n in range(20)
        ),
    ]
    path = write_lines(tmp_path / "in.jsonl", rows)
    sides = []
    for dataset in ("hh_chosen", "hh_rejected"):
        conversations, done = imported(dataset, path, limit=40, seed=3)
        assert len(conversations) == 40
        assert done.drawn_from == 110
        sides.append({(one.meta or {})["pair"]: one.group for one in conversations})
    assert sides[0] == sides[1]


def test_pairs_that_share_a_side_give_it_once(tmp_path: Path) -> None:
    rows = [hh_row("q?", "Yes.", f"No {n}.") for n in range(5)]
    path = write_lines(tmp_path / "in.jsonl", rows)
    chosen, done = imported("hh_chosen", path, limit=5, seed=0)
    rejected, _ = imported("hh_rejected", path, limit=5, seed=0)
    assert (len(chosen), len(rejected)) == (1, 5)
    assert done.left_out == {"duplicate conversation": 4}


def test_no_row_that_can_be_used_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"chosen": 1, "rejected": ""}, {"x": 1}])
    out = tmp_path / "out.jsonl"
    out.write_text("was there before")
    for options in ({}, {"limit": 3}, {"limit": 3, "seed": 1}):
        with pytest.raises(
            UserError, match=r"no row of hh_chosen can be used; first error: .*line 1, field chosen"
        ):
            imported("hh_chosen", path, out, **options)
        assert out.read_text() == "was there before"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_strict_lets_pass(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [*pairs(3), *pairs(3)])
    conversations, done = imported("hh_chosen", path, strict=True)
    assert len(conversations) == 3
    assert done.left_out == {"duplicate conversation": 3}


def test_every_row_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    path = write_lines(tmp_path / "in.jsonl", [*pairs(3), "{", {"chosen": 1}])
    imported("hh_chosen", path, on_row=lambda: told.append(1))
    assert len(told) == 5


def test_text_stays_data(tmp_path: Path) -> None:
    hostile = "[bold]x[/bold] {{ 1 + 1 }} </s> <|im_end|> ../../etc/passwd %s {0} \\u0000"
    path = write_lines(tmp_path / "in.jsonl", [hh_row(hostile, hostile, "no")])
    (got,), _ = imported("hh_chosen", path)
    assert texts(got) == [("user", hostile), ("assistant", hostile)]
