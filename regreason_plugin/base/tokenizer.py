r"""The tokenizer of SmolLM2, equal to the Hub's in vocabulary, splitting and special tokens.

transformers loads it wrongly from both sources. From a GGUF file, it uses the beginning-of-text
token as the end-of-text token too, and ignores how text is split before merging
(``tokenizer.ggml.pre``). From the Hub's files, transformers 5 reads only vocabulary and merges.
Both results cut "\n\n3" into three tokens, whereas the model was trained with two. So this module
loads the Hub's ``tokenizer.json`` directly. For the package, it rebuilds that file from the GGUF,
byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from regreason_plugin.base.source import Source

# Values of the Hub's tokenizer_config.json, config.json and generation_config.json.
BEGINNING, END, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
WINDOW = 8192

_CONTROL = 3  # the type of a special token in a GGUF file


def read_tokenizer(source: Source) -> PreTrainedTokenizerFast:
    """Read the tokenizer with its chat template; it pads with the end-of-text token."""
    if source.gguf is None:
        file = (source.folder / "tokenizer.json").read_text(encoding="utf-8")
        config = (source.folder / "tokenizer_config.json").read_text(encoding="utf-8")
        template = json.loads(config)["chat_template"]
    else:
        file, template = gguf_tokenizer(source.folder / source.gguf)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(file),
        bos_token=BEGINNING,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        chat_template=template,
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )


def gguf_tokenizer(path: Path) -> tuple[str, str]:
    """The content of the Hub's tokenizer.json, rebuilt from a GGUF file, and the chat template."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields

    def content(name: str) -> Any:
        return fields[f"tokenizer.{name}"].contents()

    tokens = content("ggml.tokens")
    special = [
        token
        for token, kind in zip(tokens, content("ggml.token_type"), strict=True)
        if kind == _CONTROL
    ]
    return hub_tokenizer(tokens, content("ggml.merges"), special), content("chat_template")


def hub_tokenizer(tokens: list[str], merges: list[str], special: list[str]) -> str:
    """The content of the Hub's tokenizer.json, byte for byte.

    Args:
        tokens: All tokens in the order of their ids.
        merges: The merges, each as two tokens separated by a space, the most frequent first.
        special: The special tokens, which stand for no text.
    """
    ids = {token: number for number, token in enumerate(tokens)}
    added = [{"id": ids[token], "content": token, **_SPECIAL_TOKEN} for token in special]
    model = {**_MODEL, "vocab": ids, "merges": merges}
    return json.dumps(
        {**_HEAD, "added_tokens": added, **_TEXT, "model": model}, indent=2, ensure_ascii=False
    )


_SPECIAL_TOKEN = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_HEAD = {"version": "1.0", "truncation": None, "padding": None}
_TEXT = {
    "normalizer": None,
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTES],
    },
    "post_processor": None,
    "decoder": {**_BYTES, "add_prefix_space": True},
}
_MODEL = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}
