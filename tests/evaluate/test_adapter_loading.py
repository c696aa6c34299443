"""An adapter on its base scores as its exact merge, with any number of embedding rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.adapters import BASE, KINDS, adapter
from helpers.scoring import PlainScorer
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import PeftModel
from scipy.special import softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from regreason_plugin import Classifier
from regreason_plugin.evaluate.model import RegReasonHF

pytestmark = pytest.mark.integration

# Labels of several tokens that differ in the first. For other labels, the size of the vocabulary
# cancels out in label probabilities.
LABELS = ("not at all", "wrong", "1 of 5")
# float64, because a merge in float32 adds in another order, which changes the seventh digit.
EXACT = {"dtype": "float64", "softmax_dtype": "float64"}
PROMPT = "Premise and hypothesis: {text}\n\nDoes it follow:"
TEXTS = ["A man sleeps. Someone is awake.", "The shop is closed. Nobody buys.", "Rain. Sun."]
ADDED = ["<|verdict|>", "<|premise|>"]


def merge(adapter: Path, folder: Path, rows: int | None = None) -> Path:
    """Merge the adapter into the weights of the base model, with peft alone."""
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(rows)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    if merged.lm_head.weight is not merged.model.embed_tokens.weight:
        merged.config.tie_word_embeddings = False
    merged.save_pretrained(folder)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(folder)
    return folder


def scores(lm: Any, texts: list[str] = TEXTS) -> np.ndarray[Any, Any]:
    """Label log-likelihoods ``[texts, labels]``."""
    requests = [
        Instance("loglikelihood", {}, (PROMPT.format(text=text), f" {label}"), 0)
        for text in texts
        for label in LABELS
    ]
    found = [score for score, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    return np.array(found).reshape(len(texts), -1)


def plain(model: PlainScorer, texts: list[str] = TEXTS) -> np.ndarray[Any, Any]:
    """The same as `scores`, one label at a time, with transformers and peft alone."""
    found = [
        [model.score(PROMPT.format(text=text), f" {label}") for label in LABELS] for text in texts
    ]
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_scores_as_peft_has_it(kind: str, tmp_path: Path) -> None:
    trained = adapter(tmp_path / "adapter", **KINDS[kind])
    expected = softmax(plain(PlainScorer(BASE, trained, torch.float64)), axis=1)
    lm = RegReasonHF(str(BASE), peft=str(trained), device="cpu", probe="all", **EXACT)
    assert softmax(scores(lm), axis=1) == pytest.approx(expected, abs=1e-6)
    untrained = softmax(plain(PlainScorer(BASE, dtype=torch.float64)), axis=1)
    assert np.abs(untrained - expected).max() > 1e-3  # the adapter has an effect


@pytest.mark.parametrize("kind", ["layers", "head", "both"])
def test_its_merge_scores_alike(kind: str, tmp_path: Path) -> None:
    trained = adapter(tmp_path / "adapter", **KINDS[kind])
    merged = merge(trained, tmp_path / "merged")
    expected = softmax(plain(PlainScorer(BASE, trained, torch.float64)), axis=1)
    assert softmax(plain(PlainScorer(merged, dtype=torch.float64)), axis=1) == pytest.approx(
        expected, abs=1e-6
    )
    lm = RegReasonHF(str(merged), device="cpu", probe="all", **EXACT)
    assert softmax(scores(lm), axis=1) == pytest.approx(expected, abs=1e-6)


def test_hf_itself_cuts_the_base_as_the_docs_say(tmp_path: Path) -> None:
    trained = adapter(tmp_path / "adapter", **KINDS["layers"])
    expected = softmax(plain(PlainScorer(BASE, trained, torch.float64)), axis=1)
    cut = softmax(scores(HFLM(str(BASE), peft=str(trained), device="cpu", **EXACT)), axis=1)
    assert 1e-5 < np.abs(cut - expected).max() < 1e-2


def test_predict_scores_an_adapter_as_its_merge(tmp_path: Path) -> None:
    trained = adapter(tmp_path / "adapter", **KINDS["layers"])
    merged = merge(trained, tmp_path / "merged")
    task = tmp_path / "task.yml"
    task.write_text(
        yaml.safe_dump(
            {
                "name": "relation",
                "title": "Relation",
                "labels": list(LABELS),
                "prompt": PROMPT,
                "data": {"path": "table.csv"},
                "columns": {"text": "text", "label": "label"},
            }
        )
    )
    expected = softmax(plain(PlainScorer(BASE, trained, torch.float64)), axis=1)
    exact = ",".join(f"{key}={value}" for key, value in EXACT.items())
    for model in (f"pretrained={BASE},peft={trained}", f"pretrained={merged}"):
        answers = Classifier(f"{model},{exact}", task=task, device="cpu")(TEXTS)
        found = [[answer.probabilities[label] for label in LABELS] for answer in answers]
        assert np.array(found) == pytest.approx(expected, abs=1e-6)


def test_tokens_added_for_training_are_kept(tmp_path: Path) -> None:
    trained = adapter(tmp_path / "adapter", tokens=ADDED, **KINDS["both"])
    merged = merge(trained, tmp_path / "merged", rows=1312)
    texts = [f"{ADDED[1]} {text} {ADDED[0]}" for text in TEXTS]
    expected = softmax(plain(PlainScorer(merged, dtype=torch.float64), texts), axis=1)
    lm = RegReasonHF(str(BASE), peft=str(trained), tokenizer=str(trained), device="cpu", **EXACT)
    assert softmax(scores(lm, texts), axis=1) == pytest.approx(expected, abs=1e-6)


def test_a_tokenizer_with_more_tokens_than_rows_makes_room(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens([f"<|{number}|>" for number in range(20)])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    trained = adapter(tmp_path / "adapter", **KINDS["layers"])
    lm = RegReasonHF(
        str(BASE), peft=str(trained), tokenizer=str(tmp_path / "tokenizer"), device="cpu"
    )
    assert lm.model.get_input_embeddings().weight.shape[0] == len(tokenizer) == 1290
    assert np.isfinite(scores(lm, ["<|19|>"])).all()


def test_a_tokenizer_without_the_added_tokens_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = adapter(tmp_path / "adapter", tokens=ADDED, **KINDS["both"])
    with pytest.raises(SystemExit) as end:
        RegReasonHF(str(BASE), peft=str(trained), device="cpu", **EXACT)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "'<|premise|>', '<|verdict|>'" in error
    assert f"add tokenizer={trained}" in error


def test_padding_added_for_training_is_none_of_it(tmp_path: Path) -> None:
    trained = adapter(tmp_path / "adapter", **KINDS["layers"])
    tokenizer = AutoTokenizer.from_pretrained(trained)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    tokenizer.save_pretrained(trained)
    expected = softmax(plain(PlainScorer(BASE, trained, torch.float64)), axis=1)
    lm = RegReasonHF(str(BASE), peft=str(trained), device="cpu", **EXACT)
    assert softmax(scores(lm), axis=1) == pytest.approx(expected, abs=1e-6)
