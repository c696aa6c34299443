"""The probes compared with a slow reference: prompt by prompt, in float64, formulas written out."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from helpers.model_zoo import NORMS, VOCABULARY, random_model, tokenizer
from helpers.probe_reference import reference

from regreason_plugin import probes
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.model import RegReasonHF

pytestmark = pytest.mark.integration

CHOICES = [10, 11, 12, 13, 14]
LENGTHS = [37, 2, 9, 1, 50, 3, 20]  # below and above D = 32 and the window of 16


def prompts() -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(5, VOCABULARY) for _ in range(length)] for length in LENGTHS]


def padded(rows: list[list[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    pads = [[0] * (longest - len(row)) for row in rows]
    ones = [[1] * len(row) for row in rows]
    if side == "left":
        pairs = [(pad + row, pad + one) for pad, row, one in zip(pads, rows, ones, strict=True)]
    else:
        pairs = [(row + pad, one + pad) for pad, row, one in zip(pads, rows, ones, strict=True)]
    return torch.tensor([ids for ids, _ in pairs]), torch.tensor([mask for _, mask in pairs])


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() >= expected.keys()
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            # Entropies of 0 are 0 up to rounding.
            assert found[name] == pytest.approx(value, rel=1e-5, abs=2e-6), name


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", list(NORMS))
def test_measure_is_the_reference(family: str, side: str) -> None:
    model, rows = random_model(family, weights=0.1), prompts()
    ids, mask = padded(rows, side)
    found = probes.measure(model, ids, mask, choices=CHOICES)
    for row, values in zip(rows, found, strict=True):
        assert_same(values, reference(model, NORMS[family], row, CHOICES))
        assert values["logit_lens_entropy_by_layer"][-1] == pytest.approx(
            values["output_entropy"], rel=1e-5
        )


@pytest.mark.parametrize("family", ["llama", "gemma2, window shorter", "gpt2", "bloom"])
def test_packed_in_any_company_is_the_reference(family: str) -> None:
    model = random_model(family, weights=0.1)
    rng = random.Random(2)
    asked = []
    for number in range(4):
        conversation = [1, *(rng.randrange(5, VOCABULARY) for _ in range(10 + 7 * number))]
        for question in range(3):
            # Labels of two tokens that differ in the second, so the decision is after the first.
            context = [*conversation, 30 + question, 31]
            asked += [((f"{number}{question}", str(c)), context, [9, c]) for c in CHOICES]
    lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size=3, probe="all")
    found = lm._loglikelihood_tokens(asked, disable_tqdm=True)
    assert lm.scorer.packs == (family != "bloom")
    for (_, context, _), answer in list(zip(asked, found, strict=True))[::5]:
        assert answer.probe["deciding_token"] == "t9"
        assert answer.probe["activation_entropy_definition"] == "absolute values"
        assert_same(answer.probe, reference(model, NORMS[family], [*context, 9], CHOICES))


def test_middle_of_three_blocks() -> None:
    (values,) = probes.measure(random_model("llama"), torch.tensor([prompts()[0]]))
    for name in ("activation_entropy", "logit_lens_entropy", "matrix_entropy"):
        by_layer = values[f"{name}_by_layer"]
        assert len(by_layer) == 4
        assert values[f"{name}_mid"] == pytest.approx((by_layer[1] + by_layer[2]) / 2)


def test_uniform_and_certain_outputs() -> None:
    model = random_model("llama")
    ids = torch.tensor([prompts()[0]])
    with torch.no_grad():
        model.lm_head.weight.zero_()
    (values,) = probes.measure(model, ids, probe="output+logit_lens")
    log_v = torch.tensor(float(VOCABULARY)).log().item()
    assert values["output_entropy"] == pytest.approx(log_v)
    assert values["logit_lens_entropy_by_layer"] == pytest.approx([log_v] * 4)
    with torch.no_grad():
        state = model.model(ids).last_hidden_state[0, -1]
        model.lm_head.weight[7] = state * 1000
    (values,) = probes.measure(model, ids, probe="output")
    assert values == {"output_entropy": 0.0}


def test_the_same_prompt_of_one_token_over_and_over() -> None:
    # Embeddings that are all equal have no direction; one token cannot be compared.
    model = random_model("llama")
    found = probes.measure(model, torch.tensor([[5] * 12]), probe="matrix")
    assert found[0]["matrix_entropy_by_layer"][0] == 0.0
    one = probes.measure(model, torch.tensor([[5]]), probe="matrix")
    assert one == [{"matrix_entropy_by_layer": None, "matrix_entropy_mid": None}]
    two = probes.measure(model, torch.tensor([[5, 6]]), probe="matrix")
    assert two[0]["matrix_entropy_by_layer"] == pytest.approx([0.0] * 4, abs=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("probe", ["activation", "matrix", "logit_lens", "output"])
def test_what_is_not_finite_is_refused(bad: float, probe: str) -> None:
    model = random_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0] = bad
    with pytest.raises(UserError, match="not finite") as error:
        probes.measure(model, torch.tensor([prompts()[0]]), probe=probe)
    if probe in ("activation", "matrix"):
        assert "at layer 2" in str(error.value)


def test_the_model_stays_as_it_was() -> None:
    model = random_model("llama").train()
    ids = torch.tensor([prompts()[0]])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probes.measure(model, ids)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_hooks_are_gone_after_an_error() -> None:
    model = random_model("llama")
    with pytest.raises(IndexError):
        probes.measure(model, torch.tensor([[VOCABULARY + 1, 3]]))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("probe", "says"),
    [
        ("outptu", "did you mean 'output'"),
        ("output,label", "unknown probe 'output,label'"),
        ("", "''"),
    ],
)
def test_a_mistyped_probe(probe: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        probes.measure(random_model("llama"), torch.tensor([[3, 4]]), probe=probe)
    assert says in str(error.value)


def test_an_empty_prompt() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        probes.measure(random_model("llama"), torch.tensor([[3, 4]]), torch.tensor([[0, 0]]))


def test_a_label_without_choices_and_an_order_that_is_none() -> None:
    model, ids = random_model("llama"), torch.tensor([[3, 4, 5]])
    with pytest.raises(ValueError, match="needs choices"):
        probes.measure(model, ids, probe="output+label")
    assert "label_entropy" not in probes.measure(model, ids)[0]
    for alpha in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="not a number above 0"):
            probes.measure(model, ids, alpha=alpha)


def test_a_head_that_is_not_understood_is_noticed() -> None:
    model = random_model("llama")
    forward = type(model).forward

    def other(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        out.logits = out.logits * 3.0
        return out

    model.__class__ = type("OtherForCausalLM", (type(model),), {"forward": other})
    ids = torch.tensor([prompts()[0]])
    with pytest.raises(UserError, match="leave logit_lens out"):
        probes.measure(model, ids)
    assert probes.measure(model, ids, probe="output+activation")[0]["output_entropy"] > 0
