"""Rows as token ids, the same as lm-eval's up to and including the label.

lm-eval encodes prompt and answer as one text and splits it where the prompt alone ends. This
module does the same for training, then appends the text after the label and the end of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import LABELS
from regreason_plugin.core.prompt import TARGET_DELIMITER, Order, neutralise, split_target

# Part of the cache key of prepared data; increase it when the same rows get other ids.
VERSION = 1
IGNORE = -100


@dataclass(frozen=True)
class Tokenized:
    """Token ids of one row.

    Attributes:
        input_ids: Ids of beginning of text, prompt, target and end of text.
        prompt: Number of leading ids that no loss is taken on: those before the target.
    """

    input_ids: list[int]
    prompt: int

    @property
    def labels(self) -> list[int]:
        """The ids with -100 in place of the prompt, as Axolotl expects them."""
        return [IGNORE] * self.prompt + self.input_ids[self.prompt :]


class RowTokenizer:
    """Tokenizes prompts and targets with one model's tokenizer.

    Args:
        tokenizer: A fast or slow tokenizer of transformers.
        order: Whether label or explanation comes first in the targets.
        labels: Texts of the labels.

    Raises:
        UserError: The tokenizer cannot be used for training and evaluation alike.
    """

    def __init__(self, tokenizer: Any, order: Order, labels: Sequence[str] = LABELS) -> None:
        self._tokenizer = tokenizer
        self._order = order
        self._labels = labels
        if tokenizer.eos_token_id is None:
            raise UserError(
                "the tokenizer has no end-of-text token, so a model would never learn to "
                "stop; name one under special_tokens",
                field="special_tokens",
            )
        bare = tokenizer.encode("a", add_special_tokens=False)
        dressed = tokenizer.encode("a")
        self._prefix = dressed[: len(dressed) - len(bare)]
        if dressed != self._prefix + bare:
            raise UserError(
                "the tokenizer appends a token to every text, so lm-eval would score labels "
                "after the end of text; set add_eos_token to false in its tokenizer_config.json"
            )
        self._special = special_tokens(tokenizer)

    def tokenize(
        self, ids: Sequence[str], prompts: Sequence[str], targets: Sequence[str]
    ) -> list[Tokenized]:
        """Tokenize rows.

        Args:
            ids: Names of the rows in an error.
            prompts: Texts of the user's turns.
            targets: Texts of the assistant's turns.

        Raises:
            UserError: A row's text contains a special token, or the tokenizer merges the label
                with the text before or after it.
        """
        heads, contexts = [], []
        for row, prompt, target in zip(ids, prompts, targets, strict=True):
            try:
                before, label, _ = split_target(target, self._order, self._labels)
            except ValueError as error:
                raise UserError(f"row {row!r}: {error}") from None
            text = prompt + TARGET_DELIMITER + before
            heads.append(text + label)
            # lm-eval moves white space from the end of the context to the continuation.
            contexts.append(text.rstrip())
        wholes = [
            prompt + TARGET_DELIMITER + target
            for prompt, target in zip(prompts, targets, strict=True)
        ]
        prompt_ids = self._encode(prompts)
        context_ids = prompt_ids if contexts == list(prompts) else self._encode(contexts)
        head_ids = self._encode(heads)
        whole_ids = head_ids if wholes == heads else self._encode(wholes)
        return [
            self._row(*parts)
            for parts in zip(ids, prompt_ids, context_ids, head_ids, whole_ids, strict=True)
        ]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded: list[list[int]] = self._tokenizer(list(texts), return_attention_mask=False)[
            "input_ids"
        ]
        return encoded

    def _row(
        self, row: str, prompt: list[int], context: list[int], head: list[int], whole: list[int]
    ) -> Tokenized:
        # lm-eval encodes each of these texts separately. If one is not a prefix of the next, a
        # token spans the boundary, and the model would train on ids that are never scored.
        for part, longer, pair in (
            (prompt, whole, "the prompt with the target"),
            (context, head, "the label with the text before it"),
            (head, whole, "the label with the text after it"),
        ):
            if longer[: len(part)] != part:
                raise UserError(
                    f"row {row!r}: the tokenizer merges {pair}, so lm-eval would score other "
                    "tokens than those of the training; use another base model"
                )
        special_ids = self._special.keys() & set(whole[len(self._prefix) :])
        if special_ids:
            token = self._special[min(special_ids)]
            raise UserError(
                f"row {row!r}: its text holds {token!r}, a special token of this tokenizer "
                "that RegReason does not neutralise; remove it from the ratings"
            )
        return Tokenized([*whole, self._tokenizer.eos_token_id], len(prompt))


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Tokens that no text may contain, by id: control tokens without the unknown token.

    Tokens that were added as ordinary text (runs of spaces, a user's own words) do not count.
    Tokens that are written like markup count, whether or not the tokenizer marks them as special.
    """
    added = {
        number: str(token)
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or neutralise(str(token))[1]
    }
    known = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return {n: t for n, t in {**added, **known}.items() if n != tokenizer.unk_token_id}


def unknown_to_neutralise(tokenizer: Any) -> list[str]:
    """Special tokens of a tokenizer that `neutralise` leaves unchanged in a text."""
    return sorted(t for t in special_tokens(tokenizer).values() if not neutralise(t)[1])


def load_reference(cfg: Any) -> Any:
    """Load the tokenizer that lm-eval loads: the base model's own, without the config's changes."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        cfg.tokenizer_config,
        trust_remote_code=bool(cfg.trust_remote_code),
        revision=cfg.revision_of_model or "main",
    )
