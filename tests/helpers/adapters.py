"""Adapters of every kind for the tiny base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

BASE = Path(__file__).parents[2] / "axolotl_configs" / "cpu" / "tiny-base"


def adapter(folder: Path, *, tokens: list[str] | None = None, seed: int = 1, **config: Any) -> Path:
    """Write a random adapter of the tiny base with its tokenizer, like a training's output."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    if tokens:
        tokenizer.add_tokens(tokens)
        # Like Axolotl's resize_token_embeddings_to_32x: more tokens than the base has.
        model.resize_token_embeddings(1312)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **config)
    model = get_peft_model(model, lora)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            random = torch.randn_like(parameter) * (0.2 if "layers" in name else 0.02)
            parameter.data = random if "lora_" in name else parameter.data + random
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


KINDS: dict[str, dict[str, Any]] = {
    "layers": {"target_modules": ["q_proj", "v_proj", "down_proj"]},
    "head": {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
    "both": {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    # These two cannot be merged exactly, because the base's head is tied to its embeddings.
    "lora of the head": {"target_modules": ["v_proj", "lm_head"]},
    "lora of the embeddings": {"target_modules": ["v_proj", "embed_tokens"]},
}
