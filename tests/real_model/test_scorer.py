"""`regreason-hf` and `predict` compared with `hf` on a real model, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.real_model import CONVERSATIONS, Source, nli_data, nli_pairs, rated_data, require
from helpers.scoring import check_same, evaluate, lm_eval_samples
from lm_eval.models.huggingface import HFLM

from regreason_plugin import Classifier
from regreason_plugin.core.paper import AXES, EIGHTEEN
from regreason_plugin.data_folder.folder import TEST, DataFolder
from regreason_plugin.evaluate.model import RegReasonHF

pytestmark = pytest.mark.integration

SOURCES = ["own", "real"]
TASKS = [EIGHTEEN.task_name(CONVERSATIONS, axis) for axis in AXES]


@pytest.fixture(scope="module")
def hf(smollm2: Path) -> HFLM:
    return HFLM(str(smollm2), device="cpu", dtype="float32", batch_size=4)


def ours(hf: HFLM) -> RegReasonHF:
    """`regreason-hf` on the weights that `hf` has loaded."""
    return RegReasonHF(hf.model, tokenizer=hf.tokenizer, device="cpu", batch_size=2)


def scores(sample: dict[str, Any]) -> list[float]:
    """The log-likelihoods of the labels."""
    return [float(one[0][0]) for one in sample["resps"]]


def check_scores(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    theirs, mine = (np.array([scores(one) for one in samples]) for samples in (expected, found))
    assert np.abs(theirs - mine).max() < 1e-4
    # Documents and labels differ by far more, so the comparison is meaningful.
    assert theirs.std(axis=0).min() > 1e-2
    assert theirs.std(axis=1).min() > 1e-2


@pytest.mark.parametrize("source", SOURCES)
def test_sentence_pairs_are_scored_and_predicted_as_hf_does(
    source: Source, hf: HFLM, smollm2: Path, tmp_path: Path
) -> None:
    require(source, "esnli")
    data = nli_data(tmp_path / "data", source)
    lm = ours(hf)
    expected = lm_eval_samples(hf, data, tmp_path / "hf")
    found = lm_eval_samples(lm, data, tmp_path / "ours")
    assert expected.keys() == found.keys()
    assert len(expected) >= 9
    check_scores(list(expected.values()), [found[name] for name in expected])
    check_packed(lm, data)

    text = {f"pair-{number}": pair["text"] for number, pair in enumerate(nli_pairs(source))}
    names = [row.id for row in data.rows(TEST)]
    classifier = Classifier(f"pretrained={smollm2},dtype=float32", data.path, device="cpu")
    predicted = classifier([text[name] for name in names])
    for samples in (found, expected):
        check_same(predicted, [samples[name] for name in names], data.declaration, within=1e-4)


@pytest.mark.parametrize("source", SOURCES)
def test_three_axes_of_a_conversation_are_scored_in_one_row(
    source: Source, hf: HFLM, tmp_path: Path
) -> None:
    require(source, "hh")
    data = rated_data(tmp_path / "data", source)
    expected, lm = evaluate(hf, TASKS, data.path), ours(hf)
    found = evaluate(lm, TASKS, data.path)
    for task in TASKS:
        samples = [sorted(one["samples"][task], key=by_id) for one in (expected, found)]
        assert len(samples[0]) >= 4
        check_scores(*samples)
    check_packed(lm, data)


def check_packed(lm: RegReasonHF, data: DataFolder) -> None:
    """Check that shared prefixes (a conversation, a premise, a label's start) are read once."""
    assert lm.scorer.packs
    prompts = [row.messages[0].content for row in data.rows(TEST)]
    alone = sum(len(lm.tokenizer(prompt).input_ids) for prompt in prompts)
    assert lm.scorer.tokens_read < 0.85 * alone


def by_id(sample: dict[str, Any]) -> str:
    return str(sample["doc"]["id"])
