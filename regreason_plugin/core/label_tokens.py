"""Whether a tokenizer keeps labels as they are, and apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.look_alikes import difference
from regreason_plugin.core.prompt import TARGET_DELIMITER

_ADVICE = (
    "write other labels, in the table or under `values` in its task.yml, and build the data again, "
    "or use a model whose tokenizer keeps text as it is"
)


def check_label_tokens(
    labels: Sequence[str], tokenizer: Any, encode: Callable[[str], Sequence[int]] | None = None
) -> int:
    """Refuse labels that a tokenizer makes the same, or changes.

    One that lower-cases or normalises text, or does not know a character, does so; the label
    could then be told from no other, or never be written.

    Args:
        labels: As the model reads and writes them.
        tokenizer: A tokenizer of transformers.
        encode: A label's tokens where it is scored; those after a space where None.

    Returns:
        The longest label's tokens.

    Raises:
        UserError: So it is; both labels, or the label and what becomes of it, are named.
    """
    known: dict[tuple[int, ...], str] = {}
    for label in labels:
        tokens = tuple(encode(label) if encode else _encode(tokenizer, TARGET_DELIMITER + label))
        if not tokens:
            raise UserError(f"the model's tokenizer makes no tokens of label {label!r}")
        if tokens in known:
            raise UserError(
                f"the model's tokenizer makes the same tokens of labels {known[tokens]!r} "
                f"and {label!r}, which the model cannot tell apart "
                f"({difference(known[tokens], label)}); {_ADVICE}"
            )
        known[tokens] = label
    for label in labels:
        read = tokenizer.decode(
            _encode(tokenizer, label), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if (read := read.strip()) != label:
            raise UserError(
                f"the model's tokenizer changes label {label!r} to {read!r}, so the model can "
                f"neither learn nor write it ({difference(label, read)}); {_ADVICE}"
            )
    return max(map(len, known))


def _encode(tokenizer: Any, text: str) -> list[int]:
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens
