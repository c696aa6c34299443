"""The check that a tokenizer leaves labels unchanged and distinguishable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.look_alikes import difference
from regreason_plugin.core.prompt import TARGET_DELIMITER

_ADVICE = (
    "write other labels, in the table or under `values` in its task.yml, and build the data again, "
    "or use a model whose tokenizer leaves text unchanged"
)


def check_label_tokens(
    labels: Sequence[str], tokenizer: Any, encode: Callable[[str], Sequence[int]] | None = None
) -> int:
    """Check that a tokenizer gives labels distinct tokens and decodes them without a change.

    A tokenizer that lower-cases or normalises text, or lacks a character, can give two labels the
    same tokens, so that no model can tell them apart, or change a label, so that no model can
    write it.

    Args:
        labels: Labels as the model reads and writes them.
        tokenizer: A tokenizer of transformers.
        encode: Returns the tokens of a label at the position where it is scored; None for the
            label's tokens after a space.

    Returns:
        The number of tokens of the longest label.

    Raises:
        UserError: A label has no tokens, two labels have the same tokens, or decoding changes a
            label. The message names the two labels, or the label and its changed form.
    """
    known: dict[tuple[int, ...], str] = {}
    for label in labels:
        tokens = tuple(encode(label) if encode else _encode(tokenizer, TARGET_DELIMITER + label))
        if not tokens:
            raise UserError(f"the model's tokenizer gives label {label!r} no tokens")
        if tokens in known:
            raise UserError(
                f"the model's tokenizer gives labels {known[tokens]!r} and {label!r} the same "
                f"tokens, so the model cannot tell them apart "
                f"({difference(known[tokens], label)}); {_ADVICE}"
            )
        known[tokens] = label
    for label in labels:
        decoded = tokenizer.decode(
            _encode(tokenizer, label), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if (decoded := decoded.strip()) != label:
            raise UserError(
                f"the model's tokenizer changes label {label!r} to {decoded!r}, so the model can "
                f"neither learn nor write it ({difference(label, decoded)}); {_ADVICE}"
            )
    return max(map(len, known))


def _encode(tokenizer: Any, text: str) -> list[int]:
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens
