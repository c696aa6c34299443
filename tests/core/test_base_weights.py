"""The fingerprints of weights, on small models of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from regreason_plugin.core.base_weights import (
    BaseWeights,
    Verdict,
    compare_weights,
    read_base_weights,
)
from regreason_plugin.core.errors import UserError


def model(seed: int = 0, *, hidden: int = 32, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=hidden,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
        )
    )


def weights_of(saved: LlamaForCausalLM, folder: Path, **how: str) -> BaseWeights:
    saved.save_pretrained(folder, **how)
    weights = read_base_weights(str(folder))
    assert weights is not None
    return weights


def verdict(one: LlamaForCausalLM, other: LlamaForCausalLM, place: Path) -> Verdict:
    return compare_weights(weights_of(one, place / "one"), weights_of(other, place / "other"))


def test_the_same_weights_however_they_are_kept(tmp_path: Path) -> None:
    base = model()
    one = weights_of(base, tmp_path / "one")
    parts = weights_of(base, tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 3
    # The same tensors in other files and in another order.
    tensors = load_file(tmp_path / "one/model.safetensors")
    reversed_order = dict(sorted(tensors.items(), reverse=True))
    save_file(reversed_order, tmp_path / "one/model.safetensors", metadata={"format": "pt"})
    assert one == parts == read_base_weights(str(tmp_path / "one"))
    assert compare_weights(one, parts) == "same"


def test_a_head_that_is_tied_may_be_kept_or_not(tmp_path: Path) -> None:
    without = weights_of(model(tied=True), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    assert read_base_weights(str(tmp_path)) == without


def test_weights_of_bfloat16_are_the_same_in_float32(tmp_path: Path) -> None:
    half = model().bfloat16()
    one = weights_of(half, tmp_path / "half")
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.float32)
    other = weights_of(full, tmp_path / "full")
    assert (one.types, other.types) == (("BF16",), ("F32",))
    assert compare_weights(one, other) == compare_weights(other, one) == "same"


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_rounded_copy_is_told_from_another_model(kind: torch.dtype, tmp_path: Path) -> None:
    assert verdict(model(), model().to(kind), tmp_path) == "rounded"
    assert verdict(model().to(kind), model(), tmp_path) == "rounded"
    assert verdict(model(), model(1).to(kind), tmp_path) == "other"


def test_other_weights_and_other_shapes(tmp_path: Path) -> None:
    assert verdict(model(), model(1), tmp_path) == "other"
    assert verdict(model(), model(hidden=16), tmp_path) == "other shapes"


@pytest.mark.parametrize("kind", ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"])
def test_a_merge_into_one_kind_of_layer_shows(kind: str, tmp_path: Path) -> None:
    merged = model()
    with torch.no_grad():
        for name, weight in merged.named_parameters():
            if kind in name:
                weight += 1e-4
    assert verdict(model(), merged, tmp_path) == "other"


def test_a_quantised_copy_is_not_known(tmp_path: Path) -> None:
    base = weights_of(model(), tmp_path / "base")
    weights_of(model(), tmp_path / "small")
    config = tmp_path / "small/config.json"
    content = {**json.loads(config.read_text()), "quantization_config": {"load_in_4bit": True}}
    config.write_text(json.dumps(content))
    tensors = load_file(tmp_path / "small/model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = torch.zeros(1024, 1, dtype=torch.uint8)
    save_file(tensors, tmp_path / "small/model.safetensors")
    small = read_base_weights(str(tmp_path / "small"))
    assert small is not None
    assert small.quantised
    assert compare_weights(base, small) == compare_weights(small, base) == "unknown"
    assert compare_weights(base, None) == compare_weights(None, base) == "unknown"


def test_what_is_not_here_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    for name in (str(tmp_path), "nobody/nothing", str(tmp_path / "nowhere"), ""):
        assert read_base_weights(name) is None


@pytest.mark.parametrize("content", [b"", b"short", b"\x10" + b"\x00" * 7 + b"no JSON of header"])
def test_a_broken_file_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is not a safetensors file"):
        read_base_weights(str(tmp_path))


def test_a_part_that_is_missing_is_told(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path, max_shard_size="20KB")
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    parts[1].unlink()
    with pytest.raises(UserError, match=f"names {parts[1].name}, which is missing"):
        read_base_weights(str(tmp_path))
