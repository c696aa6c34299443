"""The part `scorer` of `make gpu` on a CPU, with a model of two small blocks."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.bench_scorer import requests_of
from bench.gpu import scorer
from bench.gpu.model_shapes import SMOLLM2, TINY, load
from bench.gpu.result import Result, run_part
from lm_eval.models.huggingface import HFLM

from regreason_plugin.evaluate.model import RegReasonHF

pytestmark = pytest.mark.integration
WAYS = ["hf", "regreason-hf", "regreason-hf, probes output, label, activation"]


def scored(out: Path, shape: str, smollm2: Path | None = None, rounds: int = 1) -> dict[str, Any]:
    run_part(
        "scorer",
        shape,
        600,
        out,
        lambda result: scorer.measure(result, shape, "cpu", smollm2, 1, rounds),
        "cpu",
    )
    found: dict[str, Any] = json.loads((out / f"scorer-{shape}.json").read_text())
    return found


def likelihoods(lm: Any, requests: list[Any]) -> np.ndarray:
    return np.array([answer[0] for answer in lm.loglikelihood(requests)])


def test_the_largest_difference_is_that_of_the_scores(tmp_path: Path) -> None:
    found = scored(tmp_path, TINY)
    assert found["state"] == "done", found
    assert [row["name"] for row in found["rows"]] == WAYS
    # 18 tasks with one document each; a document has five labels to score.
    assert (found["documents"], found["requests"], found["dtype"]) == (18, 90, "bfloat16")
    model, tokenizer = load(TINY, "cpu", None)
    requests = requests_of(1, 1)
    # Both scorers once more, outside the part. They differ because bfloat16 sums depend on order.
    theirs = likelihoods(HFLM(model, tokenizer=tokenizer, batch_size="auto"), requests)
    ours = likelihoods(
        RegReasonHF(model, tokenizer=tokenizer, batch_size="auto", probe="none"), requests
    )
    expected = np.abs(ours - theirs).max()
    assert expected > 0
    for row in found["rows"][1:]:
        assert row["largest_difference"] == pytest.approx(expected, rel=1e-6)
        assert row["packed"]
        # Packed rows have fewer tokens than all requests separately.
        assert 0 < row["tokens_read"] < sum(len(tokenizer(r.args[0]).input_ids) for r in requests)
    for row in found["rows"]:
        assert row["documents_per_second"] == pytest.approx(18 / row["seconds"])
        assert 0 < row["peak_mib"] < 1e5


def test_a_shifted_score_is_the_largest_difference(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 both scorers agree, so the largest difference is what is added to one answer."""
    original = RegReasonHF.loglikelihood

    def shifted(lm: Any, requests: list[Any], *others: Any) -> list[Any]:
        answers = original(lm, requests, *others)
        answers[7] = (answers[7][0] - 0.25, answers[7][1])
        return answers

    monkeypatch.setattr(RegReasonHF, "loglikelihood", shifted)
    found = scored(tmp_path, SMOLLM2, tiny_model)
    assert (found["state"], found["dtype"]) == ("done", "float32")
    for row in found["rows"][1:]:
        assert row["largest_difference"] == pytest.approx(0.25, abs=1e-3)


def test_the_limit_leaves_the_rounds_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Result.put_row

    def put(result: Result, row: dict[str, Any]) -> None:
        original(result, row)
        if row["name"] == WAYS[0] and row.get("timed_rounds") == 2:
            # The time limit is reached in the middle of a round.
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    monkeypatch.setattr(Result, "put_row", put)
    found = scored(tmp_path, TINY, rounds=1_000_000)
    assert found["state"] == "stopped at its time limit"
    rounds = {row["name"]: row["timed_rounds"] for row in found["rows"]}
    assert rounds == dict(zip(WAYS, (2, 1, 1), strict=True))
