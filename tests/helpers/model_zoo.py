"""Tiny random models of many families, made from configs, and a tokenizer for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 320
WINDOW = 512
# A sliding window that is shorter than the tests' texts.
SHORT = 16

_WIDE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": WINDOW,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # With weights of the usual size, a random model would give all labels nearly the same score.
    "initializer_range": 0.3,
}
_LLAMA = {**_WIDE, "num_key_value_heads": 2}
_GEMMA = {**_LLAMA, "head_dim": 8}
_NO_MLP = {key: value for key, value in _WIDE.items() if key != "intermediate_size"}
_MAMBA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "state_size": 8,
    "initializer_range": 0.3,
}

# Configs by name, of models that accept several prompts in one row.
PACKED: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaConfig(**_LLAMA),
    "mistral, window longer": lambda: hf.MistralConfig(**_LLAMA, sliding_window=WINDOW),
    "mistral, window shorter": lambda: hf.MistralConfig(**_LLAMA, sliding_window=SHORT),
    "qwen2": lambda: hf.Qwen2Config(**_LLAMA),
    "qwen2, window shorter": lambda: hf.Qwen2Config(
        **_LLAMA, use_sliding_window=True, sliding_window=SHORT, max_window_layers=1
    ),
    "qwen3": lambda: hf.Qwen3Config(**_GEMMA),
    "gemma2, window longer": lambda: hf.Gemma2Config(**_GEMMA, sliding_window=WINDOW),
    "gemma2, window shorter": lambda: hf.Gemma2Config(**_GEMMA, sliding_window=SHORT),
    "gemma3, window longer": lambda: hf.Gemma3TextConfig(
        **_GEMMA, sliding_window=WINDOW, final_logit_softcapping=5.0
    ),
    "gemma3, window shorter": lambda: hf.Gemma3TextConfig(**_GEMMA, sliding_window=SHORT),
    "mixtral": lambda: hf.MixtralConfig(**_LLAMA, num_local_experts=4),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=WINDOW,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**_WIDE, rotary_pct=0.25),
    "opt": lambda: hf.OPTConfig(**_NO_MLP, ffn_dim=64, word_embed_proj_dim=32, init_std=0.3),
    "phi3": lambda: hf.Phi3Config(**_LLAMA),
    "cohere": lambda: hf.CohereConfig(**_LLAMA, logit_scale=0.3),
    "granite": lambda: hf.GraniteConfig(**_LLAMA, logits_scaling=3.0),
    "starcoder2, window shorter": lambda: hf.Starcoder2Config(**_LLAMA, sliding_window=SHORT),
    "olmo2": lambda: hf.Olmo2Config(**_LLAMA),
}
# Configs of models that do not: they refuse the mask, or accept and ignore it.
PLAIN: dict[str, Callable[[], Any]] = {
    "bloom": lambda: hf.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.3
    ),
    "falcon with alibi": lambda: hf.FalconConfig(**_NO_MLP, alibi=True),
    "mamba": lambda: hf.MambaConfig(**_MAMBA),
    "mamba2": lambda: hf.Mamba2Config(**_MAMBA, num_heads=8, head_dim=8, n_groups=1),
    "lfm2": lambda: hf.Lfm2Config(**_LLAMA, layer_types=["conv", "full_attention", "conv"]),
    "jamba": lambda: hf.JambaConfig(
        **{**_LLAMA, "num_hidden_layers": 4},
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=2,
        use_mamba_kernels=False,
        mamba_d_state=8,
        mamba_dt_rank=4,
    ),
    "recurrent_gemma": lambda: hf.RecurrentGemmaConfig(
        **_WIDE, num_key_value_heads=1, lru_width=32, attention_window_size=SHORT
    ),
}
# The module name of the final norm of some models, for reference computations.
NORMS = {
    "llama": "model.norm",
    "mistral, window shorter": "model.norm",
    "gemma2, window shorter": "model.norm",
    "gemma3, window longer": "model.norm",
    "gpt2": "transformer.ln_f",
    "gpt_neox": "gpt_neox.final_layer_norm",
    "cohere": "model.norm",
    "bloom": "transformer.ln_f",
}


def random_model(
    family: str, dtype: torch.dtype = torch.float32, weights: float | None = None
) -> Any:
    """A model of a family, the same in every call, with this standard deviation of weights."""
    config = (PACKED | PLAIN)[family]()
    if weights is not None:
        config.init_std = config.initializer_range = weights
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(config).to(dtype).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of one token per word: ``t0`` pads a text, ``t1`` begins it, ``t2`` ends it."""
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="t0",
        bos_token="t1",
        eos_token="t2",
        model_max_length=WINDOW,
    )
