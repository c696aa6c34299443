"""The sources of an import: local files of every format, and the Hub, reachable or not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError
from helpers.raw_datasets import (
    arena_row,
    convokit,
    coqa_hub,
    coqa_story,
    hh_row,
    imported,
    qar_row,
    write_cornell,
    write_lines,
    write_parquet,
)

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import read_records
from regreason_plugin.core.paper import DATASETS, EIGHTEEN, SOURCES
from regreason_plugin.core.records import Conversation
from regreason_plugin.data import importing
from regreason_plugin.data.importer import Importer
from regreason_plugin.data.importing import IMPORTERS, import_dataset, open_source
from regreason_plugin.data.source_rows import HubDataset as Hub

PAIRS = [hh_row(f"Question {number}?") for number in range(20)]


def test_every_importer_is_of_a_declared_dataset_with_a_source() -> None:
    assert set(IMPORTERS) <= set(DATASETS) == set(SOURCES)
    assert all(source.home.startswith("https://") for source in SOURCES.values())
    assert all(source.licence for source in SOURCES.values())


def test_every_format_gives_the_same(tmp_path: Path) -> None:
    whole = json.dumps(PAIRS)
    (tmp_path / "a.json").write_text(whole)
    (tmp_path / "b.json").write_text("\n".join(map(json.dumps, PAIRS)))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(whole.encode()))
    (tmp_path / "d.json").write_text("\ufeff" + json.dumps({"data": PAIRS}))
    paths = [
        write_lines(tmp_path / "e.jsonl", PAIRS),
        write_lines(tmp_path / "f.jsonl.gz", PAIRS),
        write_parquet(tmp_path / "g.parquet", PAIRS),
        *(tmp_path / name for name in ("a.json", "b.json", "c.json.gz", "d.json")),
    ]
    found = [imported("hh_chosen", path)[0] for path in paths]
    assert len(found[0]) == 20
    assert all(one == found[0] for one in found)
    assert all(open_source("hh_chosen", path=path).total == 20 for path in paths)


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("a.parquet", b"PAR1 nothing", "a.parquet: is not a parquet file"),
        ("a.parquet", b"", "is not a parquet file"),
        ("a.jsonl.gz", b"plain", "not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b"x" * 999, mtime=0)[:-9], "not a whole gzip file"),
        ("a.json.gz", gzip.compress(b"[]" * 999, mtime=0)[:20], "not a whole gzip file"),
        ("a.json", b'[{"chosen": ', "a.json: is not JSON"),
        ("a.json", b"\xff\xfe", "byte 1 is not UTF-8"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b"[]", "has no list of rows"),
        ("a.json", b"3", "has no list of rows"),
        ("a.json", b'{"data": {"a": 1}}', "has no list of rows"),
        ("a.jsonl", b"", "is empty"),
        ("a.txt", b"x", "has to end with one of .jsonl, .jsonl.gz, .json"),
        ("gone.jsonl", None, "gone.jsonl: no such file"),
        ("gone.json", None, "gone.json: no such file"),
        ("gone.parquet", None, "gone.parquet: no such file"),
        ("gone.txt", None, "gone.txt: no such file"),
    ],
)
def test_what_is_no_such_file_is_said_at_once(
    tmp_path: Path, name: str, raw: bytes | None, expected: str
) -> None:
    if raw is not None:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=expected):
        open_source("hh_chosen", path=tmp_path / name)


def test_gzip_that_is_damaged_in_the_middle(tmp_path: Path) -> None:
    raw = bytearray(gzip.compress(b"".join(b"%d\n" % (n * n) for n in range(5000))))
    raw[len(raw) // 2] ^= 255
    (tmp_path / "a.jsonl.gz").write_bytes(raw)
    with pytest.raises(UserError, match="not a whole gzip file"):
        open_source("hh_chosen", path=tmp_path / "a.jsonl.gz")


def test_parquet_without_the_fields_is_said_at_once(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"chosen": "x", "other": 1}])
    with pytest.raises(UserError, match="fields chosen, rejected; found: chosen, other"):
        open_source("hh_chosen", path=path)


ROWS: dict[str, list[Any]] = {
    "hh_chosen": [hh_row("q")],
    "chatbot_arena": [arena_row("q")],
    "amazon_qa": [qar_row("q", ("a", [0, 0]))],
    "coqa": [coqa_hub("Story.", ("q", "a"))],
    "cornell": convokit("m0", 1, [("u0", "q"), ("u1", "a")]),
}


@pytest.mark.parametrize("given", ROWS)
@pytest.mark.parametrize("dataset", IMPORTERS)
def test_a_file_of_another_dataset_is_recognised(tmp_path: Path, dataset: str, given: str) -> None:
    path = write_lines(tmp_path / "in.jsonl", ROWS[given])
    parquet = write_parquet(tmp_path / "in.parquet", ROWS[given])
    if dataset == given or {dataset, given} == {"hh_chosen", "hh_rejected"}:
        assert imported(dataset, path)[1].conversations
        assert imported(dataset, parquet)[1].conversations
        return
    for source in (path, parquet):
        with pytest.raises(UserError, match=f"looks like {given}.*, not {dataset}; import it"):
            open_source(dataset, path=source)


def test_coqa_json_given_as_amazon_qa(tmp_path: Path) -> None:
    path = tmp_path / "coqa-train-v1.0.json"
    path.write_text(json.dumps({"data": [coqa_story("Story.", ("q", "a"))]}))
    with pytest.raises(UserError, match=r"v1.0.json: looks like coqa, not amazon_qa"):
        open_source("amazon_qa", path=path)


@pytest.mark.parametrize("dataset", IMPORTERS)
def test_out_of_reach_is_one_sentence(dataset: str) -> None:
    # HF_HUB_OFFLINE is set for all tests.
    home = f"https://huggingface.co/datasets/{next(iter(IMPORTERS[dataset].hub.values()))[0]}"
    with pytest.raises(
        UserError,
        match=f"cannot be loaded from the Hub .*download the file from {home} and.*--path",
    ):
        open_source(dataset)


@pytest.mark.parametrize("status", [401, 403])
def test_gated_says_what_to_do(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    # The wording of datasets 4.8.
    more = {
        401: "You must be authenticated to access it.",
        403: "Visit the dataset page at https://huggingface.co/datasets/x to ask for access.",
    }

    def refuse(name: str, *_: Any, **__: Any) -> None:
        raise DatasetNotFoundError(
            f"Dataset '{name}' is a gated dataset on the Hub. {more[status]}"
        )

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError) as caught:
        open_source("chatbot_arena")
    said = str(caught.value)
    assert "https://huggingface.co/datasets/lmsys/chatbot_arena_conversations" in said
    assert "`hf auth login` or set HF_TOKEN" in said
    assert "--path" in said
    assert "\n" not in said


def test_what_breaks_while_it_is_read_is_one_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream:
        info = datasets.DatasetInfo()
        column_names = None

        def __iter__(self) -> Any:
            yield PAIRS[0]
            raise ConnectionError("the line is cut")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Stream())
    source = open_source("hh_chosen")
    with pytest.raises(UserError, match="the line is cut.*--path"):
        import_dataset("hh_chosen", source, tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())


def put_on_the_hub(monkeypatch: pytest.MonkeyPatch, dataset: str, **hub: Hub) -> None:
    """Let `load_dataset` read local folders instead of the Hub."""
    importer: Importer = IMPORTERS[dataset]._replace(hub=hub)
    monkeypatch.setattr(importing, "IMPORTERS", {**IMPORTERS, dataset: importer})


def test_the_hub_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for subset in ("one", "two"):
        (tmp_path / "hub" / subset).mkdir(parents=True)
        for split in ("train", "test"):
            rows = [hh_row(f"{subset} {split} {number}?") for number in range(10)]
            write_lines(tmp_path / "hub" / subset / f"{split}.jsonl.gz", rows)
    hub = str(tmp_path / "hub")
    put_on_the_hub(monkeypatch, "hh_chosen", one=Hub(hub, folder="one"), two=Hub(hub, folder="two"))

    def asked(**options: Any) -> set[str]:
        out = tmp_path / "out.jsonl"
        import_dataset("hh_chosen", open_source("hh_chosen", **options), out)
        conversations = read_records(out, Conversation, declaration=EIGHTEEN)
        return {one.conversation[0].content.rpartition(" ")[0] for one in conversations}

    assert asked() == {"one train"}
    assert asked(split="test") == {"one test"}
    assert asked(subset="two", split="test") == {"two test"}
    with pytest.raises(UserError, match="has no subset 'tow' on the Hub; did you mean 'two'"):
        open_source("hh_chosen", subset="tow")
    with pytest.raises(UserError, match=r"cannot be loaded from the Hub.*split"):
        open_source("hh_chosen", split="validation")


@pytest.mark.parametrize("dataset", ["chatbot_arena", "coqa", "amazon_qa"])
def test_parquet_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str) -> None:
    (tmp_path / "hub").mkdir()
    local = write_parquet(tmp_path / "hub" / "train.parquet", ROWS[dataset])
    put_on_the_hub(monkeypatch, dataset, default=Hub(str(tmp_path / "hub")))
    out = tmp_path / "out.jsonl"
    import_dataset(dataset, open_source(dataset), out)
    assert (
        list(read_records(out, Conversation, declaration=EIGHTEEN)) == imported(dataset, local)[0]
    )
    put_on_the_hub(monkeypatch, "hh_chosen", default=Hub(str(tmp_path / "hub")))
    with pytest.raises(UserError, match=f"looks like {dataset}"):
        open_source("hh_chosen")


def test_the_films_of_the_hub_are_the_original_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cornell(tmp_path / "corpus", [("m0", [("u0", "q"), ("u1", "a")])])
    asked = []

    def download(repository: str, name: str, *, repo_type: str) -> str:
        asked.append((repository, repo_type))
        return str(folder / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    import_dataset("cornell", open_source("cornell"), tmp_path / "out.jsonl")
    assert (
        list(read_records(tmp_path / "out.jsonl", Conversation, declaration=EIGHTEEN))
        == imported("cornell", folder)[0]
    )
    assert asked == [("spawn99/CornellMovieDialogCorpus", "dataset")] * 2
    with pytest.raises(UserError, match="has no splits"):
        open_source("cornell", split="train")


def test_subset_and_split_are_of_the_hub(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", PAIRS)
    with pytest.raises(UserError, match="--subset and --split are only for the Hub"):
        open_source("hh_chosen", path=path, split="test")
