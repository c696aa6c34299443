r"""The tokenizer of SmolLM2, the Hub's own: its tokens, its way to cut text, its special tokens.

Neither way of transformers leads to it. Of a GGUF file it takes the beginning-of-text token for the
end, too, and passes over how text is cut before it is merged (``tokenizer.ggml.pre``). And of the
Hub's files, transformers 5 takes vocabulary and merges only. Both then cut "\n\n3" into three
tokens, where the model has learned two. So the file of the Hub is used as it is, and written again
from what the GGUF holds: the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from regreason_plugin.base.source import Source

# As in the Hub's tokenizer_config.json, config.json and generation_config.json.
BEGINNING, END, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
WINDOW = 8192

_CONTROL = 3  # the type of a special token in a GGUF file


def read_tokenizer(source: Source) -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template; a text is padded with the end-of-text token."""
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
    """The Hub's tokenizer.json, written from what a GGUF file holds, and the chat template."""
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
    """The Hub's tokenizer.json, byte for byte.

    Args:
        tokens: In the order of their ids.
        merges: Two parts each, the most frequent first.
        special: Those of the tokens that stand for no text.
    """
    ids = {token: number for number, token in enumerate(tokens)}
    added = [{"id": ids[token], "content": token, **_AS_IT_IS} for token in special]
    model = {**_MODEL, "vocab": ids, "merges": merges}
    return json.dumps(
        {**_HEAD, "added_tokens": added, **_TEXT, "model": model}, indent=2, ensure_ascii=False
    )


_AS_IT_IS = {
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
