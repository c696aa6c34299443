"""A small language model as a rater: SmolLM2 behind a llama.cpp server, on real conversations."""

from __future__ import annotations

import gzip
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.asking import start_regreason
from helpers.llama_server import PYTHON, LlamaServer, llama_server
from helpers.real_prompts import DATA

from regreason_plugin.annotate.raters import PROMPTS
from regreason_plugin.cli import main
from regreason_plugin.core.jsonl import write_records
from regreason_plugin.data.mini import mini_conversations

REAL = DATA / "hh-rlhf" / "helpful-base-test.jsonl.gz"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="no llama.cpp server: name its Python in REGREASON_TEST_LLAMA_PYTHON"
    ),
]

PAIRS = 15
DATASETS = ("hh_chosen", "hh_rejected")
AXES = ("naturalness", "comprehensiveness", "on_topic")
STYLE = "scale-1-5-short"
# Shorter than the package's prompts, whose length takes most of the time of a call here.
PROMPT = """{{conversation}}

How good is the last message in one respect, {axis}, from 1 to 5? Answer with one JSON object: \
{{"explanation": "one sentence", "score": N}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    with llama_server(tmp_path_factory.mktemp("llama")) as running:
        yield running


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both sides of the shortest real pairs, or of generated pairs if the real file is missing."""
    folder = tmp_path_factory.mktemp("hh")
    paths = [folder / f"{dataset}.jsonl" for dataset in DATASETS]
    if not REAL.is_file():
        generated = [one for one in mini_conversations(0, PAIRS) if one.dataset in DATASETS]
        for path, dataset in zip(paths, DATASETS, strict=True):
            write_records(path, (one for one in generated if one.dataset == dataset))
        return paths
    # Every text once, because a repeated text makes no call of its own.
    seen: set[str] = set()
    shortest: list[str] = []
    for line in sorted(gzip.decompress(REAL.read_bytes()).decode().splitlines(), key=len):
        sides = set(json.loads(line).values())
        rated = all(side.rpartition("Assistant:")[2].strip() for side in sides)
        if len(shortest) < PAIRS and len(sides) == 2 and rated and not sides & seen:
            seen |= sides
            shortest.append(line)
    pairs = folder / "pairs.jsonl"
    pairs.write_text("\n".join(shortest), encoding="utf-8")
    for path, dataset in zip(paths, DATASETS, strict=True):
        assert main(["import", dataset, "--path", str(pairs), "--out", str(path)]) == 0
    return paths


def write_config(
    folder: Path, server: LlamaServer, conversations: list[Path], rater: dict[str, Any], **more: Any
) -> Path:
    for axis in AXES:
        file = folder / "prompts" / STYLE / f"{axis}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PROMPT.format(axis=axis))
    weak = {
        "name": "smollm2",
        "model": "SmolLM2-135M-Instruct",
        "base_url": server.url,
        "prompts": [STYLE],
        "concurrency": 1,
        **rater,
    }
    config = folder / "annotate.yml"
    keys = {
        "conversations": list(map(str, conversations)),
        "out": str(folder / "ratings.jsonl"),
        "prompts": str(folder / "prompts"),
        "raters": [weak, *more.pop("rules", ())],
        **more,
    }
    config.write_text(yaml.safe_dump(keys))
    return config


def calls(store: Path) -> list[dict[str, Any]]:
    """Every finished call, read with plain SQLite as another program would read it."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        found = database.execute("SELECT * FROM calls WHERE state != 'asking'").fetchall()
    return [dict(row) for row in found]


def finished(store: Path) -> list[dict[str, Any]]:
    try:
        return calls(store)
    except sqlite3.OperationalError:  # the table does not exist yet
        return []


def test_killed_resumed_aggregated_and_built(
    server: LlamaServer,
    conversations: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # So few tokens that some answers are complete and some are cut. If the model's score is
    # missing, the rule's scores alone are too few for a label.
    config = write_config(
        tmp_path,
        server,
        conversations,
        {"max_tokens": 16},
        rules=["rules-even"],
        minimum=1 + len(PROMPTS),
    )
    ratings, store, log = (
        tmp_path / "ratings.jsonl",
        tmp_path / "ratings.calls.db",
        tmp_path / "log",
    )
    total = 2 * PAIRS * len(AXES)

    process = start_regreason("annotate", config, log=log)
    while len(finished(store)) < total // 3:
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    assert process.kill() == -9
    before = {row["prompt_sha256"] + row["conversation"]: row for row in calls(store)}
    assert total // 3 <= len(before) < total
    assert not ratings.exists()

    capsys.readouterr()
    assert main(["annotate", str(config)]) == 0
    said = capsys.readouterr().out
    rows = calls(store)
    assert len(rows) == total
    # The rows answered before the kill are unchanged, even their time: no call was made again.
    after = {row["prompt_sha256"] + row["conversation"]: row for row in rows}
    assert {key: after[key] for key in before} == before
    # Only the call under way when the process was killed may have been repeated.
    asked = sum(row["attempts"] for row in rows)
    assert asked <= server.requests() <= asked + 1

    states = Counter(row["state"] for row in rows)
    assert set(states) == {"ok", "truncated"}
    assert min(states.values()) >= 5
    assert all(row["answer_tokens"] == 2 * 16 for row in rows if row["state"] == "truncated")
    scores = total * (1 + len(PROMPTS))
    missing = (
        f"{states['truncated']} of {scores} scores are missing: {states['truncated']} truncated"
    )
    assert missing in said
    assert f"{states['ok']} ratings: {ratings}" in said
    assert f"{states['truncated']} left out: " in said
    written = [json.loads(line) for line in ratings.read_text(encoding="utf-8").splitlines()]
    assert len(written) == states["ok"]

    assert main(["aggregate", str(ratings)]) == 0
    assert "smollm2" in capsys.readouterr().out
    data = tmp_path / "data"
    assert main(["build", str(ratings), "--out", str(data)]) == 0
    counts = json.loads((data / "manifest.json").read_text())["counts"]
    assert sum(count["rows"] for count in counts.values()) == states["ok"]


def test_prose_is_told_from_an_answer(
    server: LlamaServer,
    conversations: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a JSON schema and at a high temperature, the model writes prose."""
    three = tmp_path / "three.jsonl"
    three.write_bytes(b"".join(conversations[0].read_bytes().splitlines(keepends=True)[:3]))
    rater = {
        "max_tokens": 60,
        "structured": "none",
        "temperature": 1.5,
        "request": {"seed": 0},
    }
    config = write_config(tmp_path, server, [three], rater)
    code = main(["annotate", str(config)])
    said = "".join(capsys.readouterr())
    rows = calls(tmp_path / "ratings.calls.db")
    states = Counter(row["state"] for row in rows)
    failed = {state: number for state, number in states.items() if state != "ok"}
    assert set(failed) <= {
        *("truncated", "broken_json", "score_missing", "score_not_a_number"),
        *("score_out_of_range", "explanation_empty", "no_answer"),
    }
    assert failed
    assert len(rows) == 3 * len(AXES)
    # The store keeps every answer that could not be used, and the summary counts each state.
    assert all(row["answer"] for row in rows if row["state"] not in {"ok", "no_answer"})
    assert all(row["attempts"] == 2 for row in rows if row["state"] != "ok")
    assert code == (0 if states["ok"] else 2)
    assert all(f"{number} {state}" in said for state, number in failed.items())
