"""The dataset card: the Hub can read it, it matches the folder, and no value becomes markup."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from helpers.rating_files import ratings, read, tree, write
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from regreason_plugin.annotate.provenance import About, RaterProvenance, write_about
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import AXES, SOURCES
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.data_folder.build import BuildOptions, build
from regreason_plugin.data_folder.folder import file_sha256
from regreason_plugin.data_folder.mini import build_mini

HOSTILE = "x|y `code` <script>alert(1)</script> [x](http://evil) _a_ **b** ``` \n# h\n- l \u202e"


def rated(number: int = 60, rater: str = "judge") -> list[dict[str, Any]]:
    """Rows with the scores of two raters, the second of whom scores one label higher."""
    return [
        {
            **row,
            "ratings": [
                {
                    "rater": name,
                    "prompt": "plain",
                    "scale": 5,
                    "score": min(5, row["label"] + more),
                    "explanation": row["explanation"],
                }
                for name, more in ((rater, 0), ("second", 1))
            ],
        }
        for row in ratings(number)
    ]


def about(path: Path, **changes: Any) -> Path:
    """Write the record of how a ratings file was made."""
    record = About(
        ratings_sha256=file_sha256(path),
        raters=[
            RaterProvenance(
                name="judge",
                model="org/Judge-7B",
                sampling={"temperature": 0.7},
                prompts={"plain": "cafe0123cafe0123"},
                served={"org/Judge-7B-0601": 1200, "org/Judge-7B-0701": 34},
                days={"2026-07-02": 34, "2026-06-30": 1200},
            ),
            RaterProvenance(name="second"),
        ],
        merged_by=RaterProvenance(name="merger", model="org/Merger"),
        aggregator="trimmed_mean",
        minimum=2,
        conversations={"coqa": 30},
        calls={"ok": 1234, "timed_out": 5},
        answers={
            "judge": {
                "plain": {"ok": 1000},
                "short": {"ok": 234, "stalled": 5, "refused": 1, "truncated": 60},
            },
            "second": {"short": {"truncated": 1200}},
        },
        dropped={"fewer than 2 usable ratings": 7},
        versions={"regreason": "0.1.0"},
    )
    return write_about(path, record.model_copy(update=changes))


def parsed(text: str) -> tuple[list[Any], list[Any], dict[str, list[str]]]:
    """The tokens, their parts, and each table row's cells, keyed by the row's first cell."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows: dict[str, list[str]] = {}
    row: list[str] = []
    for token in tokens:
        if token.type == "tr_open":
            row = []
        elif token.type == "inline":
            row.append("".join(part.content for part in token.children or []))
        elif token.type == "tr_close":
            rows[" / ".join(row[:2]) if row[0] in rows else row[0]] = row[1:]
    return tokens, [part for token in tokens for part in token.children or []], rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    path = write(folder / "ratings.jsonl", rated())
    about(path)
    build(path, folder / "data", BuildOptions(seed=3, max_prompt=500))
    return folder / "data"


def test_the_hub_s_own_reader_takes_it(data: Path) -> None:
    card = DatasetCard.load(data / "README.md")
    front = card.data.to_dict()
    assert front["license"] == "other"
    assert front["size_categories"] == ["n<1K"]
    assert "language" not in front  # nobody knows it
    assert front["pretty_name"].startswith("RegReason")
    assert [config["config_name"] for config in front["configs"]] == list(ARMS)
    assert [c["config_name"] for c in front["configs"] if c.get("default")] == ["explanation"]


@pytest.mark.parametrize("arm", ["explanation", "label_only"])
def test_datasets_loads_every_split_of_an_arm(data: Path, arm: str, tmp_path: Path) -> None:
    loaded = load_dataset(str(data), arm, cache_dir=str(tmp_path))
    files = {
        "train": data / "train" / f"{arm}.jsonl",
        "validation": data / "validation" / f"{arm}.jsonl",
        "test": data / "test.jsonl",
    }
    assert set(loaded) == set(files)
    for split, file in files.items():
        assert list(loaded[split]) == read(file)


def test_it_says_what_is_in_the_folder(data: Path) -> None:
    text = (data / "README.md").read_text(encoding="utf-8")
    _, _, cells = parsed(text.split("---\n", 2)[2])
    manifest = json.loads((data / "manifest.json").read_bytes())
    for split, count in manifest["counts"].items():
        expected = [count["rows"], count["conversations"], count["groups"]]
        assert cells[split] == [f"{number:,}" for number in expected]
    labels = [
        sum(row["label"] == label for row in ratings() if row["dataset"] == "coqa")
        for label in range(1, 6)
    ]
    by_axis = [
        row for key, row in cells.items() if key.startswith("coqa") and row[0] in AXES.values()
    ]
    assert [sum(int(row[place]) for row in by_axis) for place in range(1, 6)] == labels
    words = manifest["lengths"]["explanation"]
    assert cells["explanation"][:2] == [f"{words['words_mean']:g}", str(words["words_max"])]
    assert f"`{file_sha256(data / 'manifest.json')}`" in text
    assert "GENERATED" not in text
    assert "regreason_coqa_naturalness,regreason_coqa_comprehensiveness" in text
    assert "Cut: prompts to 500 words" in text


def test_it_says_who_rated_and_how(data: Path) -> None:
    text = (data / "README.md").read_text(encoding="utf-8")
    _, _, cells = parsed(text.split("---\n", 2)[2])
    assert cells["judge"] == [
        *("org/Judge-7B", "temperature 0.7", "plain cafe0123cafe0123"),
        *("org/Judge-7B-0601, org/Judge-7B-0701", "2026-06-30 to 2026-07-02"),
    ]
    # 66 of 300; a prompt without missing scores has no row.
    why = "60 truncated, 5 stalled, 1 refused"
    assert cells["judge / short"] == ["short", "300", "66", "22.0%", why]
    assert cells["second / short"] == ["short", "1,200", "1,200", "100.0%", "1,200 truncated"]
    assert cells["judge / plain"][0] == "plain"
    assert text.count("| asked | missing |") == 1
    assert cells["merger, merges explanations"][0] == "org/Merger"
    assert "combined by `trimmed_mean`; a row needs 2 usable scores" in text
    assert "| calls of raters | ok | 1,234 |" in text
    assert "| conversations x axes without a label | fewer than 2 usable ratings | 7 |" in text
    # The bias of the second rater is the mean of what it adds to a score.
    differences = [min(5, row["label"] + 1) - row["label"] for row in ratings()]
    bias = sum(differences) / len(differences)
    assert cells["second / plain"][1:3] == [f"{len(differences)}", f"{bias:+.3f}"]
    assert cells["judge / plain"][2] == f"{-bias:+.3f}"
    assert "| all raters x prompts | 2 |" in text


def test_without_a_word_on_the_ratings_it_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", ratings())
    build(path, tmp_path / "data")
    text = (tmp_path / "data" / "README.md").read_text(encoding="utf-8")
    assert "Raters: not stated. How they were asked" in text
    assert "The ratings do not include the scores of the single raters" in text


def test_generated_data_are_called_so(tmp_path: Path) -> None:
    build_mini(tmp_path / "data", BuildOptions(arms=("label_only",)), per_dataset=60)
    text = (tmp_path / "data" / "README.md").read_text(encoding="utf-8")
    front = DatasetCard(text).data.to_dict()
    assert "GENERATED" in front["pretty_name"]
    assert "generated" in front["tags"]
    assert front["language"] == ["en"]
    assert [config["config_name"] for config in front["configs"]] == ["label_only"]
    body = text.split("---\n", 2)[2]
    assert body.index("**These conversations are GENERATED") < body.index("## ")
    assert "--tasks 'regreason_*'" in text


def test_the_same_rows_in_any_order_give_the_same_card(tmp_path: Path) -> None:
    cards = set()
    for seed in range(3):
        rows = rated()
        random.Random(seed).shuffle(rows)
        path = write(tmp_path / "ratings.jsonl", rows)
        about(path)
        build(path, tmp_path / "data")
        cards.add((tmp_path / "data" / "README.md").read_bytes())
    assert len(cards) == 1


def test_explanation_first_names_its_own_tasks(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", ratings())
    build(path, tmp_path / "data", BuildOptions(order="explanation_first"))
    text = (tmp_path / "data" / "README.md").read_text(encoding="utf-8")
    assert "regreason-gen_coqa_naturalness" in text
    assert "regreason_coqa" not in text


def test_no_text_from_outside_is_markup(tmp_path: Path, data: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", rated(rater=HOSTILE))
    rater = RaterProvenance(
        name=HOSTILE,
        model=HOSTILE,
        sampling={HOSTILE: HOSTILE},
        prompts={HOSTILE: HOSTILE},
        served={HOSTILE: 1},
        days={HOSTILE: 1},
    )
    about(
        path,
        raters=[rater],
        merged_by=rater,
        aggregator=HOSTILE,
        calls={HOSTILE: 1},
        answers={HOSTILE: {HOSTILE: {HOSTILE: 4}}},
        dropped={HOSTILE: 2},
        notes={HOSTILE: 3},
    )
    build(path, tmp_path / "data")
    text = (tmp_path / "data" / "README.md").read_text(encoding="utf-8")
    front, body = text.split("---\n", 2)[1:]
    plain = (data / "README.md").read_text(encoding="utf-8")
    assert front == plain.split("---\n", 2)[1]
    tokens, parts, _ = parsed(body)
    assert not [token for token in (*tokens, *parts) if token.type.startswith("html")]
    links = [part.attrs["href"] for part in parts if part.type == "link_open"]
    homes = {SOURCES[row["dataset"]].home for row in rated()}
    assert sorted(links) == sorted(["https://arxiv.org/abs/2511.02044", *homes])
    assert not [part for part in parts if part.type in {"em_open", "strong_open"}]
    own, theirs = (
        [t.type for t in parsed(part)[0] if t.type in {"heading_open", "fence", "list_item_open"}]
        for part in (body, plain.split("---\n", 2)[2])
    )
    assert own == theirs
    shown = " ".join("".join(c if c.isprintable() else " " for c in HOSTILE).split())
    spans = {part.content.replace("\\|", "|") for part in parts if part.type == "code_inline"}
    assert shown in spans


def test_a_tokenizer_s_folder_is_nobody_s_business(tmp_path: Path, tiny_model: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", ratings())
    build(path, tmp_path / "data", BuildOptions(tokenizer=str(tiny_model)))
    text = (tmp_path / "data" / "README.md").read_text(encoding="utf-8")
    assert f"Tokens are those of `{tiny_model.name}`." in text
    assert str(tiny_model) not in text


def test_a_word_on_other_ratings_stops_it_and_nothing_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", rated())
    record = about(path, ratings_sha256="0" * 64)
    with pytest.raises(UserError, match=r"ratings.about.json.*describes another version"):
        build(path, tmp_path / "data")
    assert sorted(tmp_path.iterdir()) == sorted([path, record])


def test_an_older_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.jsonl", ratings())
    build(path, tmp_path / "data")
    before = tree(tmp_path / "data")
    (tmp_path / "data" / "README.md").write_text("Mine.")
    build(path, tmp_path / "data")
    assert tree(tmp_path / "data") == before
