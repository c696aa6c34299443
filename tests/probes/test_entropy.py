"""The entropies compared with scipy and with cases that are solved by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.probe_reference import matrix_entropy as slow_matrix_entropy
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from regreason_plugin.core.layers import middle_blocks
from regreason_plugin.metrics.metric_names import PRIMARY_ACTIVATION
from regreason_plugin.probes.entropy import (
    activation_entropies,
    distribution_entropy,
    matrix_entropies,
    matrix_entropy,
)

sizes = st.integers(2, 40)
seeds = st.integers(0, 10_000)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(sizes, seeds, st.floats(0.01, 30))
def test_distribution_entropy_is_scipys(width: int, seed: int, scale: float) -> None:
    logits = normal(3, width, seed=seed) * scale
    expected = entropy(softmax(logits.double().numpy(), axis=-1), axis=-1)
    assert distribution_entropy(logits).numpy() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_distribution_entropy_at_its_ends() -> None:
    assert float(distribution_entropy(torch.zeros(7))) == pytest.approx(math.log(7))
    assert float(distribution_entropy(torch.tensor([0.0, -math.inf, -math.inf]))) == 0.0
    assert float(distribution_entropy(torch.tensor([0.0, -1e30, 0.0]))) == pytest.approx(
        math.log(2)
    )
    for bad in (math.nan, math.inf):
        assert distribution_entropy(torch.tensor([0.0, bad])).isnan()


def test_distribution_entropy_of_near_certainty_keeps_its_digits() -> None:
    logits = torch.tensor([0.0, 14.0, -3.0, 1.0])
    exact = entropy(softmax(logits.double().numpy()))
    assert exact < 1e-4
    assert float(distribution_entropy(logits)) == pytest.approx(exact, rel=1e-5)


def test_distribution_entropy_of_low_precision_is_computed_in_float32() -> None:
    logits = normal(100_000)
    exact = entropy(softmax(logits.bfloat16().double().numpy()))
    assert float(distribution_entropy(logits.bfloat16())) == pytest.approx(exact, rel=1e-5)


@given(sizes, seeds, st.sampled_from([1e-20, 1.0, 1e25]))
def test_activation_entropies_are_scipys(width: int, seed: int, scale: float) -> None:
    hidden = normal(2, width, seed=seed) * scale
    wide = hidden.double().numpy()
    found = activation_entropies(hidden)
    expected = {
        "activation_entropy": abs(wide),
        "activation_entropy_square": wide**2,
    }
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        values = entropy(weights, axis=-1) / math.log(width)
        assert found[name].numpy() == pytest.approx(values, rel=1e-5, abs=1e-6), name


def test_activation_entropies_at_their_ends() -> None:
    for value in activation_entropies(torch.zeros(5)).values():
        assert float(value) == pytest.approx(1.0)
    for value in activation_entropies(torch.tensor([0.0, -50.0, 0.0])).values():
        assert float(value) == 0.0
    for value in activation_entropies(torch.tensor([1.0, math.inf, 2.0])).values():
        assert value.isnan()


@given(sizes, seeds, st.floats(1e-20, 1e20))
def test_activation_entropies_know_no_scale(width: int, seed: int, scale: float) -> None:
    hidden = normal(3, width, seed=seed)
    root_mean_square = hidden.square().mean(dim=-1, keepdim=True).sqrt()
    for other in (hidden * scale, -hidden, hidden / root_mean_square):
        for name, values in activation_entropies(other).items():
            expected = activation_entropies(hidden)[name]
            assert torch.allclose(values, expected, rtol=1e-5, atol=1e-6), name


def test_massive_units_leave_the_primary_activation_entropy_alive() -> None:
    """One unit is 1000 times as large as the others, as in a real model's residual stream."""
    hidden = normal(20, 576)
    hidden[:, 507] = 1000.0
    size = hidden.double().abs().numpy()
    expected = entropy(size, axis=-1) / math.log(576)
    found = activation_entropies(hidden)[PRIMARY_ACTIVATION].numpy()
    assert found == pytest.approx(expected, rel=1e-5)
    assert 0.3 < found.min() < found.max() < 0.5
    # The entropy of a softmax is nearly 0, with or without division by the root mean square.
    root_mean_square = np.sqrt((size**2).mean(axis=-1, keepdims=True))
    for state in (hidden.double().numpy(), hidden.double().numpy() / root_mean_square):
        assert entropy(softmax(state, axis=-1), axis=-1).max() / math.log(576) < 1e-6


@given(st.integers(2, 12), st.integers(0, 12))
def test_matrix_entropy_of_orthonormal_rows(tokens: int, more: int) -> None:
    states = torch.eye(tokens + more)[:tokens]
    expected = math.log(tokens - 1) / math.log(tokens)
    assert float(matrix_entropy(states[None])) == pytest.approx(expected, abs=1e-6)


def test_matrix_entropy_at_its_ends() -> None:
    assert matrix_entropy(normal(1, 1, 8)).isnan()
    assert float(matrix_entropy(normal(1, 2, 8))) == pytest.approx(0.0, abs=1e-6)
    equal = normal(1, 1, 8).expand(1, 9, 8) * 1234.5
    assert float(matrix_entropy(equal)) == 0.0
    assert float(matrix_entropy(equal.bfloat16())) == 0.0
    for alpha in (0.5, 2.0, 3.0):
        assert float(matrix_entropy(equal, alpha=alpha)) == 0.0


@given(st.integers(2, 30), st.integers(2, 20), seeds)
def test_matrix_entropy_written_out(tokens: int, width: int, seed: int) -> None:
    states = normal(tokens, width, seed=seed) + 3.0
    expected = slow_matrix_entropy(states.numpy())
    assert float(matrix_entropy(states[None])) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(seeds, st.sampled_from([0.5, 2.0, 3.0]))
def test_renyi_entropies(seed: int, alpha: float) -> None:
    states = normal(9, 14, seed=seed)
    x = states.double().numpy()
    x = x - x.mean(axis=0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    # Centring makes the smallest of the nine eigenvalues 0.
    w = np.linalg.eigvalsh(x @ x.T / 9)[1:]
    expected = np.log((w**alpha).sum()) / (1 - alpha) / math.log(9)
    assert float(matrix_entropy(states[None], alpha=alpha)) == pytest.approx(expected, rel=1e-3)


def test_renyi_goes_to_von_neumann() -> None:
    states = normal(1, 12, 20)
    near = float(matrix_entropy(states, alpha=1.02))
    exact = float(matrix_entropy(states))
    assert near == pytest.approx(exact, rel=1e-2)
    assert near != exact
    assert float(matrix_entropy(states, alpha=1.00001)) == exact


def test_matrix_entropy_knows_no_scale_no_shift_no_order() -> None:
    states = normal(1, 15, 10)
    value = float(matrix_entropy(states))
    turned = torch.linalg.qr(normal(10, 10, seed=1))[0]
    for other in (states * 1e4, states + 2.0, states[:, torch.randperm(15)], states @ turned):
        assert float(matrix_entropy(other)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("width", [6, 40])
def test_padding_changes_nothing(width: int) -> None:
    prompts = [normal(length, width, seed=length) for length in (2, 9, 1, 17, 5)]
    alone = torch.cat([matrix_entropy(states[None]) for states in prompts])
    lengths = torch.tensor([len(states) for states in prompts])
    padded = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_value=99.0)
    for found in (matrix_entropy(padded, lengths), matrix_entropies(prompts)):
        assert torch.allclose(found, alone, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert found.isnan().tolist() == [False, False, True, False, False]


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    matrix_entropies([normal(30, 40), normal(20, 40)])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("layers", "blocks"),
    [(1, []), (2, [1]), (3, [1, 2]), (4, [2]), (6, [2, 3, 4]), (32, list(range(11, 22)))],
)
def test_middle_blocks(layers: int, blocks: list[int]) -> None:
    assert list(middle_blocks(layers)) == blocks
