"""`compare` and `gate` note how the scoring of models may have distorted their numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.results import ALL, draw_scores, write_results

from regreason_plugin.cli import main
from regreason_plugin.comparison.compare import compare
from regreason_plugin.evaluate.results import Run, read_run

TASKS = ALL[:2]
# The embeddings have 1,280 rows, the tokenizer has 1,270 tokens.
BASE = Path(__file__).parents[2] / "axolotl_configs" / "cpu" / "tiny-base"
OURS = {"config/model": "regreason-hf"}


def folder_of(folder: Path, seed: int, *, last: float = 0.0, **options: Any) -> Path:
    """Results of a model. `last` is added to the last document's last label score."""
    scores = {task: draw_scores(task, 60, 0.6, seed) for task in TASKS}
    scores[TASKS[-1]][-1, -1] += last
    write_results(folder, scores, **options)
    return folder


def run_of(folder: Path, seed: int, **options: Any) -> Run:
    return read_run(folder.name, folder_of(folder, seed, **options))


def doubts(runs: list[Run], word: str) -> list[str]:
    return [note for note in compare(runs, runs[0].name).comparison.notes if word in note]


def test_models_with_every_score_equal_are_named(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 2), ("c", 2))]
    (note,) = doubts(runs, "same score")
    assert note.startswith("`b` and `c` have the same scores for every document")
    assert "--use_cache" in note


def test_one_other_score_is_another_model(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a", 1), run_of(tmp_path / "b", 1, last=1e-5)]
    assert not doubts(runs, "same score")


def test_seeds_with_every_score_equal_are_named(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "base", 1)]
    for seed in (7, 8):
        adapter = tmp_path / f"adapter{seed}"
        adapter.mkdir()
        record = {"arm": "x", "seed": seed, "data": {"sha256": "0" * 64, "path": "d"}}
        (adapter / "regreason.json").write_text(json.dumps(record))
        folder = folder_of(tmp_path / f"x{seed}", 2, adapter=str(adapter))
        runs.append(read_run("x", folder))
    (note,) = doubts(runs, "same score")
    assert note.startswith("`x` (seed 7) and `x` (seed 8) have the same score")


def test_the_gate_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [folder_of(tmp_path / "a", 1), folder_of(tmp_path / "b", 1)]
    folders.append(folder_of(tmp_path / "c", 1, last=1e-5))
    for candidate, told in ((folders[1], 1), (folders[2], 0)):
        summary, junit = tmp_path / f"{candidate.name}.md", tmp_path / f"{candidate.name}.xml"
        given = [f"baseline={folders[0]}", f"candidate={candidate}"]
        arguments = (*given, "--baseline", "baseline", "--max-drop", 0.05)
        main(["gate", *map(str, (*arguments, "--summary", summary, "--junit", junit))])
        for text in (capsys.readouterr().out, summary.read_text(), junit.read_text()):
            assert text.count("baseline and candidate have the same score") == told


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({}, True),  # the base model without an adapter
        ({"adapter": "ADAPTER", "changes": OURS}, True),
        ({"adapter": "ANOTHER"}, False),
    ],
    ids=["without peft", "regreason-hf", "hf"],
)
def test_an_adapter_whose_base_hf_cut(tmp_path: Path, other: dict[str, Any], told: bool) -> None:
    runs = [
        run_of(tmp_path / "a", 1, model=str(BASE), **other),
        run_of(tmp_path / "b", 2, model=str(BASE), adapter="ADAPTER"),
    ]
    notes = doubts(runs, "resized")
    assert len(notes) == told
    if told:
        assert "the base model of `b` from 1,280 rows to the tokenizer's 1,270" in notes[0]


def test_a_base_that_hf_does_not_cut(tmp_path: Path) -> None:
    """A base with one row per token, and a base that is not on this machine."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 4}}))
    tokenizer = {"model": {"vocab": [["a", 0.0], ["b", -1.0]]}}
    tokenizer["added_tokens"] = [{"content": "b"}, {"content": "<s>"}, {"content": "</s>"}]
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    for model in (str(base), "nobody/nothing"):
        runs = [
            run_of(tmp_path / model.replace("/", "_") / "a", 1, model=model),
            run_of(tmp_path / model.replace("/", "_") / "b", 2, model=model, adapter="ADAPTER"),
        ]
        assert not doubts(runs, "resized")


def test_the_tokenizer_of_the_example_has_fewer_tokens_than_rows() -> None:
    from transformers import AutoConfig, AutoTokenizer

    assert AutoConfig.from_pretrained(BASE).vocab_size == 1280
    assert len(AutoTokenizer.from_pretrained(BASE)) == 1270
