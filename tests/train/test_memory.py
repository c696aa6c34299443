"""The memory estimate, compared with published models, PyTorch and bitsandbytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen3Config

from regreason_plugin.train.check.memory import (
    GIB,
    ModelShape,
    estimate,
    lora_parameters,
    read_deepspeed,
    read_shape,
)

# Numbers from the models' cards and files.
PUBLISHED: list[tuple[Any, int]] = [
    (
        MistralConfig(
            **{"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336},
            **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
        ),
        7_241_732_096,
    ),
    (
        LlamaConfig(
            **{"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336},
            **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
        ),
        8_030_261_248,
    ),
    (
        LlamaConfig(
            **{"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192},
            **{"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
            **{"head_dim": 64, "tie_word_embeddings": True},
        ),
        1_235_814_400,
    ),
    (
        Qwen3Config(
            **{"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288},
            **{"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8},
            **{"head_dim": 128, "tie_word_embeddings": False},
        ),
        8_190_735_360,
    ),
]
MISTRAL = PUBLISHED[0][0]


class Config(dict[str, Any]):
    """Stand-in for Axolotl's config: a missing key is None."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


def qlora(**changes: Any) -> Config:
    values = {
        **{"adapter": "qlora", "load_in_4bit": True, "bf16": True, "lora_r": 16},
        **{"lora_target_linear": True, "micro_batch_size": 4, "sequence_len": 1024},
        **{"gradient_checkpointing": True, "optimizer": "adamw_torch"},
    }
    return Config(values | changes)


@pytest.fixture(scope="module")
def mistral() -> ModelShape:
    return read_shape(MISTRAL)


@pytest.mark.parametrize(("config", "parameters"), PUBLISHED)
def test_the_number_of_weights_is_the_published_one(config: Any, parameters: int) -> None:
    assert read_shape(config).parameters == parameters


@pytest.mark.parametrize(
    "targets",
    [
        {"lora_target_linear": True},
        {"lora_target_modules": ["q_proj", "v_proj"]},
        {"lora_target_modules": r".*layers\.\d\.mlp\.\w+_proj"},
    ],
)
def test_the_number_of_lora_weights_is_pefts(targets: dict[str, Any], mistral: ModelShape) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(MISTRAL)
        given = targets.get("lora_target_modules", "all-linear")
        adapted = get_peft_model(model, LoraConfig(r=16, target_modules=given))
    expected = sum(w.numel() for n, w in adapted.named_parameters() if "lora_" in n)
    assert lora_parameters(Config(lora_r=16, **targets), mistral) == expected > 0


@pytest.mark.parametrize("family", [LlamaConfig, MistralConfig, Qwen3Config])
def test_a_block_keeps_what_pytorch_keeps(family: Any) -> None:
    """Bytes saved for the backward pass by four blocks, minus those saved by two."""
    kept, shapes, tokens = {}, {}, 2 * 256
    for layers in (2, 4):
        config = family(
            **{"vocab_size": 512, "hidden_size": 256, "intermediate_size": 688, "head_dim": 32},
            **{"num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 4},
        )
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        weights = {w.untyped_storage().data_ptr() for w in (*model.parameters(), *model.buffers())}
        # Keep the storages, so that none is freed and its address used again.
        saved: dict[int, Any] = {}

        def keep(tensor: Any, saved: dict[int, Any] = saved, weights: Any = weights) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _ = model.model(input_ids=torch.ones(2, 256, dtype=torch.long)).last_hidden_state
        kept[layers] = sum(storage.nbytes() for storage in saved.values())
        shapes[layers] = read_shape(config)
    found = (kept[4] - kept[2]) / 2 / tokens
    assert shapes[2].block_bytes() == pytest.approx(found, rel=0.02)
    assert shapes[2].normalised_queries == (family is Qwen3Config)


def test_four_bits_are_as_many_as_bitsandbytes_keeps(mistral: ModelShape) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weights = torch.randn(1024, 1024)
    packed, state = functional.quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
    scales = state.absmax.nbytes + state.state2.absmax.nbytes
    a_weight = (packed.nbytes + scales) / weights.numel()
    inner = 32 * (4096 * (2 * 4096 + 2 * 1024) + 3 * 4096 * 14336)
    others = PUBLISHED[0][1] - inner
    parts = estimate(qlora(), mistral, 500, 1, {})
    assert parts["weights"] == pytest.approx(inner * a_weight + others * 2, rel=1e-3)


def test_parts_of_the_papers_student(mistral: ModelShape) -> None:
    """A config of Mistral-7B in 4 bit, with four rows of at most 500 tokens at a time."""
    parts = estimate(qlora(), mistral, 500, 1, {})
    lora = 16 * 32 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    block = 16 * 4096 + 4 * (4096 + 1024) + 8 * 14336
    assert parts["adapter"] == parts["gradients"] == lora * 4
    assert parts["optimizer"] == lora * 8
    assert parts["activations"] == 2000 * (32 * 2 * 4096 + block)
    assert parts["logits"] == 2000 * 32000 * 14
    assert sum(parts.values()) / GIB == pytest.approx(7, abs=1)


@pytest.mark.parametrize(
    ("changes", "part", "factor"),
    [
        ({"optimizer": "adamw_bnb_8bit"}, "optimizer", 1 / 4),
        ({"optimizer": "sgd"}, "optimizer", 0),
        ({"gradient_checkpointing": False}, "activations", 14.5),
        ({"load_in_4bit": False}, "weights", 3.5),
        ({"regreason_label_share": 0.5}, "logits", 4 / 14),
        ({"cut_cross_entropy": True}, "logits", 0),
        ({"sample_packing": True}, "logits", 1024 / 500),
        ({"pad_to_sequence_len": True}, "activations", 1024 / 500),
    ],
)
def test_what_changes_a_part(
    changes: dict[str, Any], part: str, factor: float, mistral: ModelShape
) -> None:
    before = estimate(qlora(), mistral, 500, 1, {})
    after = estimate(qlora(**changes), mistral, 500, 1, {})
    assert after[part] == pytest.approx(factor * before[part], rel=0.15)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_divides_what_its_stage_divides(stage: int, mistral: ModelShape) -> None:
    root = Path(__file__).parents[2] / "axolotl_configs/deepspeed"
    cfg = qlora(adapter=None, load_in_4bit=False, deepspeed=str(root / f"zero{stage}.json"))
    settings = read_deepspeed(cfg)
    one, eight = (estimate(cfg, mistral, 500, n, settings) for n in (1, 8))
    divided = ["optimizer", "gradients", "weights"][:stage]
    assert {part for part in one if eight[part] != one[part]} == set(divided)
    assert all(eight[part] == one[part] / 8 for part in divided)
    assert one["optimizer"] == 12 * PUBLISHED[0][1]
    offload = json.loads((root / "zero3_offload.json").read_text())
    parts = estimate(cfg, mistral, 500, 8, offload)
    assert parts["optimizer"] == parts["weights"] == 0
