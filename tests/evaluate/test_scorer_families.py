"""`regreason-hf` gives the same numbers as `hf` for every model family, and probes each."""

from __future__ import annotations

import pytest
import torch
from helpers.label_requests import labels, requests, score
from helpers.model_zoo import PACKED, PLAIN, random_model, tokenizer
from lm_eval.models.huggingface import HFLM

from regreason_plugin.evaluate.model import RegReasonHF

pytestmark = pytest.mark.integration

# mamba2 is slow on a CPU.
FAMILIES = [
    pytest.param(one, marks=pytest.mark.slow) if one == "mamba2" else one
    for one in [*PACKED, *PLAIN]
]


@pytest.mark.parametrize("family", FAMILIES)
def test_hfs_numbers_in_float32(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, asked = random_model(family), requests()
    expected = score(HFLM(model, tokenizer=tokenizer(), batch_size=3), asked)
    lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size=4, probe="all")
    found = score(lm, asked)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-4)
    assert [one[1] for one in found] == [one[1] for one in expected]
    # The answers differ from each other; otherwise the comparison would prove little.
    assert len({round(one[0], 3) for one in found}) > 60

    assert lm.scorer.packs == (family in PACKED)
    read = lm.scorer.tokens_read
    alone = sum(len(context) for context in {tuple(context) for _, context, _ in asked})
    if family in PACKED:
        assert read < 0.6 * alone
    else:
        score(lm, asked)
        assert capsys.readouterr().err.count("cannot read several prompts in one row") == 1
        assert read >= alone

    layers = model.config.num_hidden_layers + 1
    for one in found:
        assert one.probe["output_entropy"] > 0
        assert all(len(v) == layers for k, v in one.probe.items() if k.endswith("_by_layer"))
        assert one.probe["logit_lens_entropy_by_layer"][-1] == pytest.approx(
            one.probe["output_entropy"], rel=1e-4
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_hfs_numbers_in_bfloat16(family: str) -> None:
    model, asked = random_model(family, torch.bfloat16, weights=0.02), requests()
    hf = HFLM(model, tokenizer=tokenizer(), batch_size=3, softmax_dtype="float32")
    expected = score(hf, asked)
    found = score(RegReasonHF(model, tokenizer=tokenizer(), batch_size=4), asked)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=2e-2)
    for theirs, ours in labels(asked, expected, found):
        best, second = sorted(theirs)[-1:-3:-1]
        if best - second > 2e-2:
            assert ours.index(max(ours)) == theirs.index(max(theirs))


def test_the_numbers_of_hf_stay_its_own() -> None:
    """Both score in one process, one after the other, with the same model object."""
    model, asked = random_model("gemma2, window shorter"), requests()
    hf = HFLM(model, tokenizer=tokenizer(), batch_size=3)
    before = score(hf, asked)
    hooks = sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )
    found = score(RegReasonHF(model, tokenizer=tokenizer(), batch_size=3, probe="all"), asked)
    assert score(hf, asked) == before
    assert type(before[0]) is tuple
    assert type(found[0]) is not tuple
    assert hooks == sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )
