"""Lengths of texts: in tokens with a tokenizer, in words without."""

from __future__ import annotations

from functools import cache

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.prompt import TARGET_DELIMITER
from regreason_plugin.data_folder.arms import WordLength, one_each


class Measure:
    """Measures prompts, targets and single words.

    Args:
        name: A tokenizer's folder or Hub name; None for words.
    """

    def __init__(self, name: str | None) -> None:
        self.unit: str = "tokens" if name else "words"
        self._tokenizer = _load_tokenizer(name) if name else None
        # Of one word inside a text; texts are white-space separated words, and no common
        # tokenizer merges across white space, so a text is as long as its words' sum.
        self.word: WordLength = cache(lambda word: self.tokens(" " + word)) if name else one_each

    def tokens(self, text: str) -> int:
        """Tokens of a text, none added."""
        assert self._tokenizer is not None
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def prompt(self, text: str) -> int:
        """As it begins a sequence."""
        if self._tokenizer is None:
            return len(text.split())
        return len(self._tokenizer.encode(text))

    def target(self, text: str) -> int:
        """As it follows a prompt."""
        if self._tokenizer is None:
            return len(text.split())
        return self.tokens(TARGET_DELIMITER + text) + 1  # and the end of text


def _load_tokenizer(name: str):  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"--tokenizer {name!r} cannot be loaded: {first}") from None
