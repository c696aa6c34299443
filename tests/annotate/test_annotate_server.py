"""`transformers serve` as a real server with a real model: the tiny base, which writes nonsense."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers.asking import write_talk

from regreason_plugin.cli import main

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MODEL = Path(__file__).parents[2] / "axolotl_configs" / "cpu" / "tiny-base"
# The states that a meaningless answer can get.
UNREADABLE = {
    "broken_json",
    "no_answer",
    "truncated",
    "score_missing",
    "score_not_a_number",
    "score_out_of_range",
    "explanation_empty",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a running server."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "serve.log"
    command = Path(sys.executable).with_name("transformers")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(command), "serve", str(MODEL), "--device", "cpu", "--port", str(port)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    try:
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://localhost:{port}/health", timeout=2):
                    break
            except OSError:
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.5)
        yield f"http://localhost:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("structured", ["none", "json_schema"])
def test_nonsense_is_recorded_as_unreadable(
    server: str,
    structured: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_talk(Path("talks.jsonl"))
    rater = {
        "name": "tiny",
        "model": str(MODEL),
        "base_url": server,
        "prompts": ["scale-1-5"],
        "max_tokens": 12,
        "structured": structured,
        "retries": 0,
        "concurrency": 1,
    }
    config = {"conversations": ["talks.jsonl"], "out": "ratings.jsonl", "raters": [rater]}
    Path("annotate.yml").write_text(yaml.safe_dump(config))
    assert main(["annotate", "annotate.yml"]) == 2  # no conversation gets a label
    said = capsys.readouterr().err
    assert "no conversation has enough usable scores" in said
    assert "Traceback" not in said
    assert not Path("ratings.jsonl").exists()
    with sqlite3.connect("ratings.calls.db") as store:
        rows = store.execute("SELECT state, attempts, answer_tokens, answer FROM calls").fetchall()
    assert len(rows) == 3
    states = Counter(state for state, *_ in rows)
    # A server without JSON schemas may refuse the request; otherwise the model must have answered.
    allowed = UNREADABLE | ({"bad_request"} if structured == "json_schema" else set())
    assert set(states) <= allowed, rows
    if "bad_request" not in states:
        assert all(tokens > 0 for _, _, tokens, _ in rows)
        assert any(answer for *_, answer in rows)
