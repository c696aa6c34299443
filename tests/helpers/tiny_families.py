"""Tiny random models with the architectures and chat templates of real families.

The templates are our own, not the vendors', but they have the parts that affect tokens, such as
Qwen3's empty thought and Llama-3's header with a date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

QWEN3 = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\n\nToday: 1 May 2024<|eot_id|>' }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


def save_family(family: str, tiny_model: Path, folder: Path) -> Path:
    """Save a random model with its tokenizer.

    Args:
        family: ``mistral``, ``qwen3`` or ``llama3``.
        tiny_model: Model whose vocabulary is used.
        folder: The folder to write.
    """
    import torch
    import transformers as hf

    tokenizer = _tokenizer(family, tiny_model)
    sizes = {
        **_SIZES,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config: Any
    if family == "mistral":
        config = hf.MistralConfig(**sizes, sliding_window=1024)
    elif family == "qwen3":
        config = hf.Qwen3Config(**sizes, head_dim=8)
    else:
        config = hf.LlamaConfig(**sizes)
    torch.manual_seed(0)
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(family: str, tiny_model: Path) -> Any:
    from tokenizers import AddedToken, Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    template = None
    if family == "qwen3":
        # No beginning-of-text token, and the marks of a thought are ordinary tokens.
        bpe.post_processor = processors.ByteLevel(trim_offsets=False)
        bpe.add_special_tokens(["<|endoftext|>"])
        bpe.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
        names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        template = QWEN3
    elif family == "llama3":
        start = "<|begin_of_text|>"
        bpe.add_special_tokens([start, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, bpe.token_to_id(start))]
        )
        names = {"bos_token": start, "eos_token": "<|eot_id|>", "pad_token": "<pad>"}
        template = LLAMA3
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, chat_template=template, model_max_length=2048, **names
    )
