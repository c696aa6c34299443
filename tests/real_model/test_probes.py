"""The activation entropies on a real model and real text: right, and alive where it matters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.real_prompts import FILES, real_prompts
from scipy.stats import entropy

from regreason_plugin import probes
from regreason_plugin.core.layers import middle_blocks
from regreason_plugin.metrics.metric_names import PRIMARY_ACTIVATION

MODEL = Path(os.environ.get("REGREASON_TEST_SMOLLM2", "none"))
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (MODEL / "config.json").is_file(),
        reason="no SmolLM2: name the folder of SmolLM2-135M-Instruct in REGREASON_TEST_SMOLLM2",
    ),
    pytest.mark.skipif(
        not all(file.is_file() for file in FILES.values()),
        reason="no real texts: name their folder in REGREASON_TEST_DATA",
    ),
]


@pytest.fixture(scope="module")
def measured() -> list[tuple[Any, dict[str, Any]]]:
    """Of each prompt the last token's hidden states ``[L, D]``, blocks 0 to L - 1, and probes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    found = []
    for prompt in real_prompts(4):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            hidden = model(ids, output_hidden_states=True, logits_to_keep=1).hidden_states
        # (The last of them is after the final norm.)
        states = np.stack([layer[0, -1].double().numpy() for layer in hidden[:-1]])
        found.append((states, *probes.measure(model, ids, probe="activation")))
    return found


@pytest.mark.parametrize(
    ("name", "power"), [("activation_entropy", 1), ("activation_entropy_square", 2)]
)
def test_entropies_are_those_of_output_hidden_states(measured: Any, name: str, power: int) -> None:
    for states, values in measured:
        expected = entropy(abs(states) ** power, axis=1) / np.log(states.shape[1])
        assert values[f"{name}_by_layer"][:-1] == pytest.approx(expected, abs=1e-5)


def test_the_primary_definition_is_alive_in_every_middle_block(measured: Any) -> None:
    by_layer = np.array([values[f"{PRIMARY_ACTIVATION}_by_layer"] for _, values in measured])
    middle = by_layer[:, middle_blocks(by_layer.shape[1] - 1)]
    assert middle.shape == (12, 11)
    assert 0.01 < middle.min() < middle.max() < 0.99
    # It says something: documents differ by more than rounding, and so do blocks.
    assert middle.mean(axis=1).std() > 1e-3
    assert middle.mean(axis=0).std() > 1e-3


def test_a_softmax_over_the_state_is_dead(measured: Any) -> None:
    """Why it is no definition any more, with and without the division by the root mean square."""
    states = np.stack([states for states, _ in measured])[:, 10:21]
    for state, most in (
        (states, 1e-6),
        (states / np.sqrt((states**2).mean(axis=-1, keepdims=True)), 0.1),
    ):
        weights = np.exp(state - state.max(axis=-1, keepdims=True))
        values = entropy(weights, axis=-1) / np.log(states.shape[-1])
        assert values.max() < most
        assert np.median(values) < 0.01
