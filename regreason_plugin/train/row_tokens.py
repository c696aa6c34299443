"""Rows as token ids: the same that lm-eval feeds and scores, up to and including the label.

lm-eval encodes prompt and answer as one text and cuts it where the prompt alone ends.
Training does the same here, then appends what follows the label and the end of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import LABELS
from regreason_plugin.core.prompt import TARGET_DELIMITER, Order, neutralise, split_target

# Part of the key of prepared data: raise it when the same rows give other ids.
VERSION = 1
IGNORE = -100


@dataclass(frozen=True)
class Tokenized:
    """One row's ids.

    Attributes:
        input_ids: Beginning of text, prompt, target, end of text.
        prompt: How many of them are the prompt's, on which no loss is taken.
    """

    input_ids: list[int]
    prompt: int

    @property
    def labels(self) -> list[int]:
        """The ids with the prompt's left out, as Axolotl expects them."""
        return [IGNORE] * self.prompt + self.input_ids[self.prompt :]


class RowTokenizer:
    """Turns prompts and targets into ids with one model's tokenizer.

    Args:
        tokenizer: A tokenizer of transformers, fast or slow.
        order: Whether label or explanation comes first in the targets.
        labels: The texts of the labels.

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
            ids: What to call the rows in an error.
            prompts: The user turns.
            targets: The assistant's turns.

        Raises:
            UserError: A row's text becomes a special token, or the tokenizer merges
                the label with what stands beside it.
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
        # Each is what lm-eval encodes on its own; where one is no prefix of the next, a
        # token spans the cut, and the model would be trained on ids it is never scored on.
        for part, longer, place in (
            (prompt, whole, "the prompt with the target"),
            (context, head, "the label with the text before it"),
            (head, whole, "the label with the text after it"),
        ):
            if longer[: len(part)] != part:
                raise UserError(
                    f"row {row!r}: the tokenizer merges {place}, so lm-eval would score other "
                    "tokens than were trained; use another base model"
                )
        found = self._special.keys() & set(whole[len(self._prefix) :])
        if found:
            token = self._special[min(found)]
            raise UserError(
                f"row {row!r}: its text holds {token!r}, a special token of this tokenizer "
                "that neutralising does not know; remove it from the ratings"
            )
        return Tokenized([*whole, self._tokenizer.eos_token_id], len(prompt))


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """The ids that no text may become: control tokens, but not the unknown token.

    Tokens that were added as ordinary text (runs of spaces, a user's own words) are
    none; those written like markup are, whatever the tokenizer calls them.
    """
    added = {
        number: str(token)
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or neutralise(str(token))[1]
    }
    known = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return {n: t for n, t in {**added, **known}.items() if n != tokenizer.unk_token_id}


def unknown_to_neutralise(tokenizer: Any) -> list[str]:
    """The special tokens that `neutralise` leaves as they are when a text holds them."""
    return sorted(t for t in special_tokens(tokenizer).values() if not neutralise(t)[1])


def load_reference(cfg: Any) -> Any:
    """The tokenizer as lm-eval loads it: the base model's own, whatever the config adds."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        cfg.tokenizer_config,
        trust_remote_code=bool(cfg.trust_remote_code),
        revision=cfg.revision_of_model or "main",
    )
