"""The scorer checks that a model reads packed rows correctly before it trusts any of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import pytest
import torch
import transformers
from helpers.label_requests import requests, score
from helpers.model_zoo import PACKED, VOCABULARY, random_model, tokenizer
from lm_eval.models.huggingface import HFLM
from scipy.stats import entropy
from transformers.modeling_outputs import CausalLMOutputWithPast

from regreason_plugin import probes
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate import scorer
from regreason_plugin.evaluate.model import RegReasonHF

pytestmark = pytest.mark.integration

FELL_BACK = "cannot read several prompts in one row"
BATCHES = [1, 4, "auto"]


def alone(model: Any, asked: list[Any]) -> list[float]:
    """The log-likelihood of each request, from a separate forward pass, in float32 after it."""
    found = []
    with torch.no_grad():
        for _, context, continuation in asked:
            logits = model(torch.tensor([[*context, *continuation][:-1]])).logits[0].float()
            scores = logits[-len(continuation) :].log_softmax(dim=-1)
            found.append(float(scores.gather(1, torch.tensor(continuation)[:, None]).sum()))
    return found


def ours(model: Any, asked: list[Any], **arguments: Any) -> tuple[list[float], RegReasonHF]:
    lm = RegReasonHF(model, tokenizer=tokenizer(), backend="causal", **arguments)
    return [one[0] for one in score(lm, asked)], lm


def texts_of(lengths: list[tuple[int, int]], label: int = 1) -> list[Any]:
    """Requests: texts of some tokens, each with questions of 8 tokens and one label."""
    rng = random.Random(0)

    def ids(count: int) -> list[int]:
        return [rng.randrange(5, VOCABULARY) for _ in range(count)]

    return [
        ((f"{number} {question}", ""), text + ids(8), ids(label))
        for number, (length, questions) in enumerate(lengths)
        for text in [ids(length)]
        for question in range(questions)
    ]


# --- Models that would give wrong numbers --------------------------------------------------


@contextmanager
def ignoring(name: str, model: Any) -> Iterator[None]:
    """A model that accepts an argument but ignores it."""
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, name: None}), with_kwargs=True
    )
    yield
    handle.remove()


@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("argument", ["position_ids", "attention_mask"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_argument_that_is_not_heeded(
    family: str, argument: str, dtype: torch.dtype, batch_size: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = random_model(family, dtype, weights=0.1)
    # The longest row has labels of two tokens, and a shift of only one.
    long = [((f"long {n}", ""), texts_of([(112, 1)])[0][1], [9 + n, 20]) for n in range(2)]
    asked = [*texts_of([(20, 3), (35, 3), (50, 3)]), *long]
    expected = alone(model, asked)
    with ignoring(argument, model):
        found, lm = ours(model, asked, batch_size=batch_size, probe="none")
    assert found == pytest.approx(expected, abs=1e-4 if dtype == torch.float32 else 2e-2)
    assert not lm.scorer.packs
    assert capsys.readouterr().err.count(FELL_BACK) == 1


@pytest.mark.parametrize("batch_size", BATCHES)
def test_attention_in_chunks(batch_size: Any) -> None:
    """Chunks go by the index in the row, and change a text that is not in the longest row."""
    config = transformers.Llama4TextConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=64, intermediate_size_mlp=64,
        num_local_experts=2, max_position_embeddings=512, attention_chunk_size=64,
        layer_types=["chunked_attention", "full_attention"] * 2, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    asked = texts_of([(30, 20), (120, 2)])
    found, lm = ours(model, asked, batch_size=batch_size, probe="none")
    assert found == pytest.approx(alone(model, asked), abs=1e-4)
    assert not lm.scorer.packs


@pytest.mark.parametrize("where", [0, -1])
@pytest.mark.parametrize("probe", ["none", "output+activation"])
def test_rows_that_are_not_numbers(
    where: int, probe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a packed row gives NaN, none of the batch's answers are used."""
    model, asked = random_model("llama"), requests()
    expected = alone(model, asked)

    def overflow(_: Any, __: Any, kwargs: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
        if kwargs.get("attention_mask") is not None:
            output[where, -30:] = float("nan")
        return output

    model.model.layers[1].register_forward_hook(overflow, with_kwargs=True)
    found, lm = ours(model, asked, batch_size=4, probe=probe)
    assert found == pytest.approx(expected, abs=1e-4)
    assert not lm.scorer.packs
    assert FELL_BACK in capsys.readouterr().err


def test_a_prompt_that_is_no_number_by_itself_hides_no_other() -> None:
    model = random_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = float("nan")
    shared = [
        (texts, [max(token, 6) for token in context], continuation)
        for texts, context, continuation in texts_of([(40, 3)])
    ]
    asked = [*shared, (("by itself", ""), [5, 9, 9], [10])]
    *expected, undefined = alone(model, asked)
    assert undefined != undefined
    masked: list[int] = []

    def later(_: Any, __: Any, kwargs: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
        if kwargs.get("attention_mask") is not None:
            masked.append(1)
            if len(masked) > 1:  # not in the check against single rows
                output[:, -8:] = float("nan")
        return output

    model.model.layers[1].register_forward_hook(later, with_kwargs=True)
    (*found, last), lm = ours(model, asked, batch_size="auto", probe="none")
    assert found == pytest.approx(expected, abs=1e-4)
    assert last != last
    assert not lm.scorer.packs


def test_a_model_that_is_no_number_anywhere_is_not_blamed_on_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, asked = random_model("llama"), requests()
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    found, lm = ours(model, asked, batch_size=4, probe="none")
    assert all(one != one for one in found)
    assert lm.scorer.packs
    assert FELL_BACK not in capsys.readouterr().err


def test_an_error_that_plain_rows_have_too_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    model = random_model("llama")
    asked = [((str(n), ""), [5, 6, 7, VOCABULARY + n], [9]) for n in range(3)]
    with pytest.raises(IndexError):
        ours(model, asked, batch_size=4, probe="none")
    assert FELL_BACK not in capsys.readouterr().err


# --- Models that give right numbers ----------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 8, "auto"])
@pytest.mark.parametrize("scale", [3, 10])
def test_low_precision_with_large_logits_is_packed(scale: int, batch_size: Any) -> None:
    """Here `hf`'s own numbers change by tenths with the shape of a batch."""
    config = PACKED["llama"]()
    config.hidden_size, config.intermediate_size, config.head_dim = 128, 256, 32
    config.num_hidden_layers, config.initializer_range = 6, 0.05
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    torch.nn.init.normal_(model.lm_head.weight, std=scale / 128**0.5)
    model = model.bfloat16().eval()
    _, lm = ours(model, requests(), batch_size=batch_size, probe="none")
    assert lm.scorer.packs


def test_impossible_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    model = random_model("llama")
    plain = model.lm_head.forward

    def masked(hidden: torch.Tensor) -> torch.Tensor:
        logits = plain(hidden).clone()
        logits[..., 300:] = float("-inf")
        return logits

    model.lm_head.forward = masked
    context = texts_of([(40, 1)])[0][1]
    asked = [((str(n), ""), [*context, 7, n + 5], [310]) for n in range(3)]
    found, lm = ours(model, asked, batch_size=4, probe="output+activation+matrix")
    assert found == [float("-inf")] * 3
    assert lm.scorer.packs


@pytest.mark.parametrize("batch_size", BATCHES)
def test_a_context_that_is_another_with_its_continuation(batch_size: Any) -> None:
    """`hf` with its logits_cache reads the first of the cached positions instead of the last."""
    model = random_model("llama")
    asked = [
        (("a", ""), [5, 6, 7], [8, 9]),
        (("b", ""), [5, 6, 7, 8], [10]),
        (("b", " "), [5, 6, 7, 8], [11]),
    ]
    found, _ = ours(model, asked, batch_size=batch_size)
    assert found == pytest.approx(alone(model, asked), abs=1e-4)
    hf = HFLM(model, tokenizer=tokenizer(), batch_size=1, logits_cache=False)
    assert found == pytest.approx([one[0] for one in score(hf, asked)], abs=1e-4)


def test_embeddings_that_are_the_head_too() -> None:
    class Tied(transformers.LlamaForCausalLM):
        """A model written as some models outside of transformers are."""

        def get_output_embeddings(self) -> Any:
            return self.model.embed_tokens

        def forward(self, input_ids: Any = None, **others: Any) -> Any:
            hidden = self.model(input_ids=input_ids, **others).last_hidden_state
            weight = self.model.embed_tokens.weight
            return CausalLMOutputWithPast(logits=torch.nn.functional.linear(hidden, weight))

    model = random_model("llama")
    model.__class__ = Tied
    found, lm = ours(model, requests(), batch_size=4, probe="output")
    assert found == pytest.approx(alone(model, requests()), abs=1e-4)
    assert lm.scorer.packs


# --- Probes ------------------------------------------------------------------------------------


def test_mixed_precision_is_not_that_of_the_entropies(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any]] = []
    read = scorer.logits_at

    def watched(*args: Any, **kwargs: Any) -> Any:
        logits, values = read(*args, **kwargs)
        seen.extend((logits[d.position].double(), v) for d, v in zip(args[4], values, strict=True))
        return logits, values

    monkeypatch.setattr(scorer, "logits_at", watched)
    model = random_model("llama")
    lm = RegReasonHF(model, tokenizer=tokenizer(), mixed_precision_dtype="bfloat16", probe="output")
    score(lm, requests())
    assert len(seen) > 10
    for logits, values in seen:
        expected = entropy(torch.softmax(logits, dim=-1).numpy())
        assert values["output_entropy"] == pytest.approx(expected, rel=1e-5)
    matrix, states = torch.randn(1, 20, 30), torch.randn(4, 30)
    functions: list[Callable[[], Any]] = [
        lambda: probes.entropy.matrix_entropy(matrix),
        lambda: probes.entropy.activation_entropies(states)["activation_entropy"],
    ]
    for function in functions:
        exact = function()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(function(), exact)


class Streams(transformers.LlamaForCausalLM):
    """A model whose blocks pass on two states per token; those of Gemma 3n pass on four."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for block in self.model.layers:
            block.register_forward_hook(lambda _, __, output: torch.stack([output, output]))
            block.register_forward_pre_hook(self._first, with_kwargs=True)
        self.model.norm.register_forward_pre_hook(lambda _, args: (args[0][0],))

    @staticmethod
    def _first(_: Any, args: Any, kwargs: Any) -> Any:
        return ((args[0][0] if args[0].ndim == 4 else args[0], *args[1:]), kwargs)


def test_layers_that_cannot_be_probed(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = Streams(PACKED["llama"]()).eval()
    asked = requests()
    expected = alone(model, asked)
    # Default probes are left out, with a message; probes that the user names are an error.
    found, lm = ours(model, asked, batch_size=4)
    assert found == pytest.approx(expected, abs=1e-4)
    assert lm.scorer.packs
    assert capsys.readouterr().err.count("no probes by layer: ") == 1
    assert {*score(lm, asked)[0].probe} == {"deciding_token", "output_entropy", "label_entropy"}
    with pytest.raises(SystemExit) as end:
        ours(model, asked, batch_size=4, probe="activation")
    assert end.value.code == 2
    assert "do not pass on one state per token" in capsys.readouterr().err


def test_a_block_that_is_used_more_than_once() -> None:
    model = random_model("llama")
    model.model.layers = torch.nn.ModuleList([model.model.layers[0]] * 3)
    ids = torch.tensor([[1, 5, 6, 7, 8, 9, 10]])
    states: list[torch.Tensor] = []
    block = model.model.layers[0]
    first = block.register_forward_pre_hook(lambda _, args: states.append(args[0][0, -1]))
    model(ids, use_cache=False)  # with a cache, the blocks would share it
    first.remove()
    (values,) = probes.measure(model, ids, probe="activation")
    # The block's input each time, and its output the last time.
    assert len(values["activation_entropy_by_layer"]) == 4
    expected = probes.entropy.activation_entropies(torch.stack(states))["activation_entropy"]
    assert values["activation_entropy_by_layer"][:3] == pytest.approx(expected.tolist())


def test_a_block_that_is_left_out() -> None:
    model = random_model("llama")
    model.model.config = copy(model.config)
    model.model.config.num_hidden_layers = 2  # of three blocks
    with pytest.raises(
        UserError, match="the model has 3 blocks, but 2 outputs of blocks were seen"
    ):
        probes.measure(model, torch.tensor([[1, 5, 6]]), probe="activation")
