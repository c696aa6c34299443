"""On a real model, probes equal formulas over `output_hidden_states` and vary in every block."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.probe_reference import matrix_entropy
from helpers.real_model import nli_pairs, require
from helpers.real_prompts import real_prompts
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from regreason_plugin import probes
from regreason_plugin.core.layers import middle_blocks
from regreason_plugin.metrics.metric_names import PRIMARY_ACTIVATION

pytestmark = pytest.mark.integration

BLOCKS = 30
CHOICES = (33, 34, 35)


class Measured(NamedTuple):
    """One prompt: hidden states ``[L, T, D]`` of blocks 0 to L - 1, those after the last block and
    the final norm ``[T, D]``, and at the last token the logits ``[L + 1, V]`` and the probes."""

    states: Any
    normed: Any
    logits: Any
    values: dict[str, Any]


@pytest.fixture(scope="module", params=["own", "real"])
def measured(request: pytest.FixtureRequest, smollm2: Path) -> list[Measured]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    require(request.param, "hh", "topical", "esnli")
    prompts = (
        real_prompts(2)
        if request.param == "real"
        else [pair["text"] for pair in nli_pairs("own")[::6]]
    )
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    norm, head = model.model.norm, model.get_output_embeddings()
    found = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            out = model(ids, output_hidden_states=True, logits_to_keep=1)
            # The last of them is after the final norm.
            *states, normed = (layer[0] for layer in out.hidden_states)
            lens = [head(norm(layer[-1])) for layer in states]
            logits = torch.stack([*lens, out.logits[0, -1]])
        values = probes.measure(model, ids, probe="all", choices=CHOICES)[0]
        numpy = (tensor.double().numpy() for tensor in (torch.stack(states), normed, logits))
        found.append(Measured(*numpy, values))
    return found


@pytest.mark.parametrize(
    ("name", "power"), [("activation_entropy", 1), ("activation_entropy_square", 2)]
)
def test_activation_entropies_are_those_of_output_hidden_states(
    measured: list[Measured], name: str, power: int
) -> None:
    for one in measured:
        last = one.states[:, -1]
        expected = entropy(abs(last) ** power, axis=1) / np.log(last.shape[1])
        found = one.values[f"{name}_by_layer"]
        assert len(found) == BLOCKS + 1
        assert found[:-1] == pytest.approx(expected, abs=1e-5)


def test_logit_lens_and_output_are_those_of_head_and_norm(measured: list[Measured]) -> None:
    for one in measured:
        expected = entropy(softmax(one.logits, axis=1), axis=1)
        assert one.values["logit_lens_entropy_by_layer"] == pytest.approx(expected, abs=1e-3)
        assert one.values["output_entropy"] == pytest.approx(expected[-1], abs=1e-4)
        chosen = log_softmax(one.logits[-1][list(CHOICES)])
        label = -(np.exp(chosen) * chosen).sum()
        assert one.values["label_entropy"] == pytest.approx(label, abs=1e-4)


def test_matrix_entropies_are_those_of_all_tokens(measured: list[Measured]) -> None:
    for one in measured[:2]:
        expected = [matrix_entropy(layer) for layer in one.states]
        found = one.values["matrix_entropy_by_layer"]
        assert len(found) == BLOCKS + 1
        assert found[:-1] == pytest.approx(expected, abs=1e-3)


def test_every_definition_is_alive_in_every_block(measured: list[Measured]) -> None:
    # Through norm and head, some early blocks are nearly certain of one token.
    for name, least, most in (
        ("activation_entropy", 0.01, 1.0),
        ("activation_entropy_square", 0.01, 1.0),
        ("logit_lens_entropy", 1e-5, np.log(measured[0].logits.shape[1])),
        ("matrix_entropy", 0.01, 1.0),
    ):
        by_layer = np.array([one.values[f"{name}_by_layer"] for one in measured])
        by_block = by_layer[:, 1:] / most
        assert by_block.shape == (len(measured), BLOCKS)
        assert least < by_block.min() <= by_block.max() < 0.99, name
        # Prompts differ by more than rounding errors in each block, and so do blocks.
        assert by_block.std(axis=0).min() > 1e-4, name
        assert by_block.mean(axis=0).std() > 1e-3, name


def test_the_primary_definition_keeps_its_rule_in_every_middle_block(
    measured: list[Measured],
) -> None:
    by_layer = np.array([one.values[f"{PRIMARY_ACTIVATION}_by_layer"] for one in measured])
    middle = by_layer[:, middle_blocks(BLOCKS)]
    assert middle.shape == (len(measured), 11)
    assert 0.01 < middle.min() < middle.max() < 0.99
    # Documents and blocks differ by more than rounding errors, so the probe carries information.
    assert middle.mean(axis=1).std() > 1e-3
    assert middle.mean(axis=0).std() > 1e-3


def test_a_softmax_over_the_state_is_dead(measured: list[Measured]) -> None:
    """The reason why this is no longer a definition, with or without the root mean square."""
    states = np.stack([one.states[10:21, -1] for one in measured])
    for state, most in (
        (states, 1e-6),
        (states / np.sqrt((states**2).mean(axis=-1, keepdims=True)), 0.1),
    ):
        values = entropy(softmax(state, axis=-1), axis=-1) / np.log(states.shape[-1])
        assert values.max() < most
        assert np.median(values) < 0.01
