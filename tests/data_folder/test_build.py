"""The data folder: every arm has the same rows, and the same rows give the same bytes."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.rating_files import ratings, read, tree, write

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.paper import AXES, EIGHTEEN
from regreason_plugin.core.prompt import LABEL_CUE, neutralise
from regreason_plugin.core.task_file import Task
from regreason_plugin.data.labelled_table import Counts, read_labelled
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.data_folder.build import BuildOptions, build, build_documents
from regreason_plugin.data_folder.folder import open_data_folder
from regreason_plugin.data_folder.sources import table_source

LONGEST_WORD = 12  # in tokens of the tiny tokenizer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    build(write(folder / "ratings.jsonl", ratings()), folder / "data", BuildOptions(seed=3))
    return folder / "data"


def test_the_same_rows_in_any_order_give_the_same_bytes(data: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        rows = ratings()
        random.Random(seed).shuffle(rows)
        build(write(tmp_path / "ratings.jsonl", rows), tmp_path / "data", BuildOptions(seed=3))
        assert tree(tmp_path / "data") == tree(data)
    build(write(tmp_path / "ratings.jsonl", ratings()), tmp_path / "data", BuildOptions(seed=4))
    assert tree(tmp_path / "data") != tree(data)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_arms_differ_in_nothing_but_the_text_after_the_label(data: Path, split: str) -> None:
    plain = read(data / split / "label_only.jsonl")
    assert plain
    for arm in ARMS:
        rows = read(data / split / f"{arm}.jsonl")
        for row, other in zip(rows, plain, strict=True):
            for key in ("id", "dataset", "group", "axis", "label", "score"):
                assert row[key] == other[key]
            assert row["messages"][0] == other["messages"][0]
            label, _, text = row["messages"][1]["content"].partition("\n")
            assert label == str(row["label"])
            assert text == row["explanation"]
            assert bool(text) == (arm != "label_only")
            assert "\n" not in text


@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_each_arm_keeps(data: Path, split: str) -> None:
    own = read(data / split / "explanation.jsonl")
    train: dict[tuple[str, str], Counter[str]] = {}
    texts: dict[tuple[str, str], dict[str, str]] = {}
    for row in read(data / "train" / "explanation.jsonl"):
        setting = row["dataset"], row["axis"]
        train.setdefault(setting, Counter()).update(row["explanation"].split())
        texts.setdefault(setting, {})[row["explanation"]] = row["id"]

    def arm(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return list(zip(own, read(data / split / f"{name}.jsonl"), strict=True))

    for row, other in arm("shuffled"):
        assert Counter(other["explanation"].split()) == Counter(row["explanation"].split())
    for name in ("bag_of_words", "random_words"):
        for row, other in arm(name):
            words = other["explanation"].split()
            assert len(words) == len(row["explanation"].split())
            assert set(words) <= set(train[row["dataset"], row["axis"]])
    for row, other in arm("mismatched"):
        donors = texts[row["dataset"], row["axis"]]
        assert other["explanation"] in donors
        assert other["explanation"] != row["explanation"]
        assert donors[other["explanation"]] != row["id"]
    for row, other in arm("filler"):
        assert len(set(other["explanation"].split())) == 1
        assert len(other["explanation"].split()) == len(row["explanation"].split())


def test_splits_share_no_group_and_lose_no_row(data: Path) -> None:
    parts = {
        "train": read(data / "train" / "explanation.jsonl"),
        "validation": read(data / "validation" / "explanation.jsonl"),
        "test": read(data / "test.jsonl"),
    }
    groups = [{row["group"] for row in rows} for rows in parts.values()]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert sorted((r["id"], r["axis"]) for rows in parts.values() for r in rows) == sorted(
        (row["id"], row["axis"]) for row in ratings()
    )
    for row in parts["test"]:
        assert [message["role"] for message in row["messages"]] == ["user"]
        assert row["explanation"] in {rating["explanation"] for rating in ratings()}


def test_nothing_special_reaches_a_message(data: Path) -> None:
    for path in data.rglob("*.jsonl"):
        for row in read(path):
            for message in row["messages"]:
                # Apart from the prompt's own markers, nothing is left to neutralise.
                for line in message["content"].split("\n"):
                    text = line.removeprefix("User:").removeprefix("Assistant:")
                    assert neutralise(text.removesuffix("Assessment:"))[1] == 0
            assert "{{ 7*7 }} {% raw %}" in row["messages"][0]["content"]


def test_the_manifest_says_what_is_there(data: Path) -> None:
    folder = open_data_folder(data)
    assert folder.origin == "rated"
    assert folder.sha256 == file_sha256(data / "manifest.json")
    on_disk = {name for name in tree(data) if name not in {"manifest.json", "README.md"}}
    assert set(folder.manifest.files) == on_disk
    for name in on_disk:
        assert folder.verify(name) == file_sha256(data / name)
    train = read(data / "train" / "filler.jsonl")
    assert folder.manifest.counts["train"].rows == len(train)
    counted = Counter(str(row["label"]) for row in train if row["dataset"] == "coqa")
    named = folder.manifest.counts["train"].labels
    assert counted == sum(
        (Counter(named[f"regreason_coqa_{axis}"]) for axis in AXES), start=Counter()
    )
    words = [len(row["explanation"].split()) for row in train]
    assert folder.manifest.lengths["filler"].words_mean == pytest.approx(
        sum(words) / len(words), abs=1e-3
    )
    assert folder.manifest.neutralised["conversations"] > 0


def test_explanation_first_puts_the_label_behind_its_cue(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", ratings())
    build(path, tmp_path / "data", BuildOptions(order="explanation_first"))
    for arm in ARMS:
        for row in read(tmp_path / "data" / "train" / f"{arm}.jsonl"):
            target = f"{row['explanation']}{LABEL_CUE} {row['label']}"
            assert row["messages"][1]["content"] == target.lstrip("\n")


def test_mismatched_from_the_same_label(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", ratings(120))
    build(path, tmp_path / "data", BuildOptions(mismatched="same_label"))
    for row in read(tmp_path / "data" / "train" / "mismatched.jsonl"):
        assert row["explanation"].split()[1] == str(row["label"])


def test_limits_cut_once_and_for_all_arms(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    rows = ratings()
    rows[0]["conversation"][1]["content"] = "endless " * 3000
    for row in rows[1 : len(AXES)]:
        row["conversation"] = rows[0]["conversation"]
    path = write(tmp_path / "ratings.jsonl", rows)
    options = BuildOptions(tokenizer=str(tiny_model), max_prompt=300, max_target=60)
    folder = build(path, tmp_path / "data", options)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    lengths: dict[str, list[int]] = {}
    seen = 0
    for name in folder.manifest.files:
        for row in read(folder.path / name):
            seen += name == "test.jsonl" or name.endswith("/filler.jsonl")
            prompt, *target = (message["content"] for message in row["messages"])
            assert len(tokenizer.encode(prompt)) <= 300
            if target:
                text = tokenizer.encode(" " + target[0], add_special_tokens=False)
                # The limit holds for the explanation; other arms match its length to one word.
                allowed = 60 if "/explanation" in name else 60 + LONGEST_WORD
                assert len(text) + 1 <= allowed
            if name.startswith("train/") and target:
                arm = name[len("train/") : -len(".jsonl")]
                lengths.setdefault(arm, []).append(len(text))
    assert seen == len(rows)  # cut, never dropped
    assert folder.manifest.cut["response"] == 1
    assert folder.manifest.cut["explanation"] > 0
    for arm in ("shuffled", "bag_of_words", "random_words", "filler"):
        for other, own in zip(lengths[arm], lengths["explanation"], strict=True):
            assert abs(other - own) <= LONGEST_WORD
    mean = {arm: sum(values) / len(values) for arm, values in lengths.items()}
    assert mean["bag_of_words"] == pytest.approx(mean["explanation"], abs=1.0)
    assert mean["random_words"] == pytest.approx(mean["explanation"], abs=1.0)
    assert lengths["shuffled"] == pytest.approx(lengths["explanation"], abs=2)


LEAKING = (
    "Reads well enough. I rate it 4/5. Odd at the end.",
    "Scored a three, it has 2 faults.",  # one sentence: only the words go
    "Rating: 4",
    "Nothing wrong here.",
)


def leaking_rows() -> list[dict[str, Any]]:
    return [  # every text in every setting
        {**row, "label": 4, "explanation": LEAKING[(i + i // 6) % 4]}
        for i, row in enumerate(ratings(80))
    ]


def test_leaks_are_counted_and_kept_by_default(tmp_path: Path) -> None:
    arms = ("label_only", "explanation", "shuffled")
    folder = build(
        write(tmp_path / "ratings.jsonl", leaking_rows()),
        tmp_path / "data",
        BuildOptions(arms=arms),
    )
    texts = Counter(
        row["explanation"]
        for split in ("train", "validation")
        for row in read(folder.path / split / "explanation.jsonl")
    )
    spoken, words = LEAKING[:2]
    assert set(texts) > {spoken, words}
    found = folder.manifest.leaked
    only_kept = sum(n for text, n in texts.items() if text.startswith("Rating"))
    assert folder.manifest.leaks == "keep"
    assert found == {
        "digit": texts[words],
        "label_word": 0,
        "score_phrase": texts[spoken] + texts[words] + only_kept,
        "rows": texts[spoken] + texts[words] + only_kept,
        "own_label": texts[spoken] + only_kept,
        "removed": 0,
        "dropped": 0,
    }


def test_removed_leaks_are_in_no_arm_and_all_arms_keep_the_same_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", leaking_rows())
    kept = build(path, tmp_path / "kept")
    folder = build(path, tmp_path / "data", BuildOptions(leaks="remove"))
    dropped = 0
    for split in ("train", "validation"):
        before = read(kept.path / split / "explanation.jsonl")
        stays = [row for row in before if not row["explanation"].startswith("Rating")]
        dropped += len(before) - len(stays)
        own = read(folder.path / split / "explanation.jsonl")
        assert [(row["id"], row["axis"]) for row in own] == [
            (row["id"], row["axis"]) for row in stays
        ]
        assert {row["explanation"] for row in own} == {
            "Reads well enough. Odd at the end.",
            ", it has faults.",
            "Nothing wrong here.",
        }
        for arm in ARMS:
            rows = read(folder.path / split / f"{arm}.jsonl")
            assert [(row["id"], row["axis"]) for row in rows] == [
                (row["id"], row["axis"]) for row in own
            ]
            for row in rows:
                target = row["messages"][1]["content"]
                assert target.count("4") == 1  # the label alone
                assert not {"2", "4/5", "rate", "three"} & set(row["explanation"].split())
    # The test file is unchanged, because nothing in it is trained on.
    assert (folder.path / "test.jsonl").read_bytes() == (kept.path / "test.jsonl").read_bytes()
    assert folder.manifest.leaked["dropped"] == dropped > 0
    assert folder.manifest.leaked["removed"] == folder.manifest.leaked["rows"] > 0
    for split, count in folder.manifest.counts.items():
        name = "test.jsonl" if split == "test" else f"{split}/filler.jsonl"
        assert count.rows == len(read(folder.path / name))


def test_a_folder_from_before_leaks_were_counted_is_read(data: Path, tmp_path: Path) -> None:
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["leaks"], manifest["leaked"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    old = open_data_folder(tmp_path).manifest
    assert (old.leaks, old.leaked) == ("keep", {})


def test_words_after_the_label_have_a_limit_without_a_tokenizer(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", ratings())
    build(path, tmp_path / "data", BuildOptions(max_target=6))
    lengths = [
        len(row["messages"][1]["content"].split())
        for row in read(tmp_path / "data" / "train" / "explanation.jsonl")
    ]
    assert max(lengths) == 6


def change(rows: list[dict[str, Any]], number: int, **fields: Any) -> list[dict[str, Any]]:
    return [{**row, **fields} if i == number else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (change(ratings(), 7, label=6), "line 8, field label"),
        (change(ratings(), 7, axis="depth"), "line 8, field axis"),
        (change(ratings(), 1, group="elsewhere"), "line 2, field group.*another group"),
        (
            change(ratings(), 1, conversation=[{"role": "assistant", "content": "?"}]),
            "line 2, field conversation.*another conversation",
        ),
        (ratings() + ratings()[:1], f"line {len(ratings()) + 1}.*is also on line 1"),
        (ratings(4), "leave none for (train|validation|test)"),
        ([{**row, "explanation": "the same"} for row in ratings()], "mismatched cannot be made"),
    ],
)
def test_bad_ratings_stop_and_write_nothing(
    tmp_path: Path, rows: list[dict[str, Any]], expected: str
) -> None:
    path = write(tmp_path / "ratings.jsonl", rows)
    with pytest.raises(UserError, match=expected):
        build(path, tmp_path / "data")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_was_changed_is_refused(data: Path, tmp_path: Path) -> None:
    build(write(tmp_path / "ratings.jsonl", ratings()), tmp_path / "data")
    folder = open_data_folder(tmp_path / "data")
    with (tmp_path / "data" / "test.jsonl").open("a") as stream:
        stream.write("\n")
    with pytest.raises(UserError, match="does not match the manifest"):
        list(folder.rows("test.jsonl"))
    (tmp_path / "data" / "test.jsonl").unlink()
    with pytest.raises(UserError, match="is missing"):
        open_data_folder(tmp_path / "data").verify("test.jsonl")
    with pytest.raises(UserError, match="lists no 'tset.jsonl'"):
        folder.verify("tset.jsonl")
    with pytest.raises(UserError, match="no such data folder"):
        open_data_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no manifest"):
        open_data_folder(tmp_path)


def test_a_manifest_declares_its_task(data: Path, tmp_path: Path) -> None:
    declared = json.loads((data / "manifest.json").read_text())["declaration"]
    assert Declaration.model_validate(declared) == EIGHTEEN
    folder = build(write(tmp_path / "ratings.jsonl", ratings()), tmp_path / "data")
    assert folder.declaration == EIGHTEEN
    manifest = json.loads((folder.path / "manifest.json").read_text())
    del manifest["declaration"]
    (folder.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest.json: does not declare .* build the data again"):
        open_data_folder(folder.path)


def test_a_table_is_named_with_its_own_line(tmp_path: Path) -> None:
    rows = [f"{n},text {n},{'ab'[n % 2]},because" for n in range(60)]
    (tmp_path / "t.csv").write_text("id,text,label,why\n" + "\n\n".join(rows) + "\n")
    task = Task.model_validate(
        {
            "name": "mine",
            "title": "Mine",
            "labels": ["a", "b"],
            "prompt": "{text}\nAnswer:",
            "data": {"path": tmp_path / "t.csv"},
            "columns": {"id": "id", "text": "text", "label": "label", "explanation": "why"},
        }
    )
    source = table_source(task, Counts())
    with pytest.raises(UserError, match="mismatched cannot be made") as error:
        build_documents(source, tmp_path / "data")
    named = re.search(r"t.csv, line (\d+), field explanation: ", str(error.value))
    assert named
    # The file has a header, and an empty line before each row but the first.
    first = next(e for e in read_labelled(task) if e.line == int(named[1]))
    assert first.line == 2 + 2 * int(first.id)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]


def test_an_out_that_holds_something_else_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", ratings())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a data folder"):
        build(path, tmp_path / "data")
    assert (tmp_path / "data" / "thesis.tex").read_text() == "years of work"
