"""The command `regreason import`, and all six datasets from import to data folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.raw_datasets import arena_row, hh_row, write_all, write_lines, write_parquet

from regreason_plugin.cli import main
from regreason_plugin.core.paper import AXES, DATASETS, SOURCES

pytestmark = pytest.mark.integration


def test_six_datasets_become_eighteen_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for dataset, source in write_all(Path("in"), 40).items():
        arguments = ["--limit", "36", "--seed", "5", "--strict"]
        command = ["import", dataset, "--path", str(source), "--out", f"{dataset}.jsonl"]
        assert main([*command, *arguments]) == 0
        printed = capsys.readouterr().out
        assert f"36 conversations of {dataset}, drawn from " in printed
        assert f"{SOURCES[dataset].home}; licence: {SOURCES[dataset].licence}" in printed
        assert "regreason annotate" in printed
    files = ", ".join(f"{dataset}.jsonl" for dataset in DATASETS)
    Path("annotate.yml").write_text(f"conversations: [{files}]\nout: ratings.jsonl\n")
    assert main(["annotate", "annotate.yml"]) == 0
    assert main(["build", "ratings.jsonl", "--out", "data"]) == 0

    manifest = json.loads(Path("data/manifest.json").read_text())
    counts = manifest["counts"]
    assert sum(count["rows"] for count in counts.values()) == 36 * 6 * 3
    assert len(counts["train"]["labels"]) == len(counts["test"]["labels"]) == 18
    sides: dict[str, set[str]] = {}
    for name in ("train/explanation.jsonl", "validation/explanation.jsonl", "test.jsonl"):
        rows = [json.loads(line) for line in Path("data", name).read_text().splitlines()]
        for row in rows:
            sides.setdefault(row["group"], set()).add(name)
        if not name.startswith("validation"):
            assert {(row["dataset"], row["axis"]) for row in rows} == {
                (dataset, axis) for dataset in DATASETS for axis in AXES
            }
    assert all(len(names) == 1 for names in sides.values())


def test_the_summary_counts_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Any] = [arena_row(f"Question {n}?") for n in range(4)]
    rows += [arena_row("Question 1!"), arena_row("q", ""), "{", {"conversation_a": []}]
    path, out = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "new" / "out.jsonl"
    assert main(["import", "chatbot_arena", "--path", str(path), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"11 conversations of chatbot_arena: {out}",
        "  5 groups; a split never divides a group",
        "  1 left out: conversation_b is missing",
        "  2 left out: no response at the end",
        "  1 left out: not a JSON object",
        "Source: https://huggingface.co/datasets/lmsys/chatbot_arena_conversations; licence: "
        "not stated here; gated, read and accept the terms on its page",
        f"Next: list {out} under `conversations` in a CONFIG.yml, then type",
        "      regreason annotate CONFIG.yml",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hh_chosen", "--path", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["hh_chosen", "--path", "in.txt"], "in.txt: has to end with one of"),
        (["hh_chosen", "--path", "."], "is a folder; name a file in it"),
        (["hh_chosen", "--path", "in.jsonl", "--strict"], "in.jsonl, line 2, field rejected: is"),
        (["hh_chosen", "--path", "in.parquet", "--strict"], "in.parquet, row 2, field rejected"),
        (["hh_chosen", "--path", "in.jsonl", "--seed", "1"], "--seed draws a random sample"),
        (["hh_chosen", "--path", "in.jsonl", "--split", "test"], "--subset and --split are only"),
        (["hh_chosen", "--path", "bad.jsonl"], "bad.jsonl, line 1, field chosen: is missing"),
        (["coqa", "--path", "in.jsonl"], "looks like hh_chosen or hh_rejected, not coqa"),
        (["coqa", "--path", "in.parquet"], "looks like hh_chosen or hh_rejected, not coqa"),
        (["cornell", "--path", "."], "has no movie_lines.txt and no movie_conversations.txt"),
        (["amazon_qa"], "cannot be loaded from the Hub"),
        (["amazon_qa", "--subset", "pairs"], "did you mean 'pair'?"),
        (["cornel"], "did you mean 'cornell'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_nothing_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows: list[Any] = [hh_row("q"), {**hh_row("q"), "rejected": None}]
    write_lines(Path("in.jsonl"), rows)
    write_parquet(Path("in.parquet"), rows)
    write_lines(Path("bad.jsonl"), ["{}"])
    Path("in.txt").write_text("x")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["import", *arguments, "--out", "out.jsonl"]) == 2
    captured = capsys.readouterr()
    message = [line for line in captured.err.splitlines() if line.startswith("regreason: ")]
    assert len(message) == 1
    assert expected in message[0]
    assert "Traceback" not in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_source_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_lines(tmp_path / "in.jsonl", [hh_row("q")])
    (tmp_path / "same").symlink_to(path)
    before = path.read_bytes()
    for out in (path, tmp_path / "same"):
        assert main(["import", "hh_chosen", "--path", str(path), "--out", str(out)]) == 2
        assert "is both read and written; name another --out" in capsys.readouterr().err
        assert path.read_bytes() == before
