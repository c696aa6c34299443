"""Measures the length of texts: in tokens with a tokenizer, in words without one."""

from __future__ import annotations

from functools import cache

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.prompt import TARGET_DELIMITER
from regreason_plugin.data_folder.arms import WordLength, count_one


class Measure:
    """Measures prompts, targets and single words.

    Args:
        name: The folder or Hub name of a tokenizer; None to count words.
    """

    def __init__(self, name: str | None) -> None:
        self.unit: str = "tokens" if name else "words"
        self._tokenizer = _load_tokenizer(name) if name else None
        # No common tokenizer merges tokens across white space, so the length of a text is the sum
        # of the lengths of its words.
        self.word: WordLength = cache(lambda word: self.tokens(" " + word)) if name else count_one

    def tokens(self, text: str) -> int:
        """The number of tokens of a text, without special tokens."""
        assert self._tokenizer is not None
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def prompt(self, text: str) -> int:
        """The length of a text that begins a sequence, with its special tokens."""
        if self._tokenizer is None:
            return len(text.split())
        return len(self._tokenizer.encode(text))

    def target(self, text: str) -> int:
        """The length of a text that follows a prompt, with the end-of-text token."""
        if self._tokenizer is None:
            return len(text.split())
        return self.tokens(TARGET_DELIMITER + text) + 1


def _load_tokenizer(name: str):  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"--tokenizer {name!r} cannot be loaded: {first}") from None
