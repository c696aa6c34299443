"""What there is to see in a labelled table before anything is made of it."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from regreason_plugin.core.declaration import TEXT
from regreason_plugin.core.prompt import TARGET_DELIMITER
from regreason_plugin.core.task_file import Columns, Data
from regreason_plugin.data.labelled_table import Counts, Twins, read_table

# A text of fewer words says little of its class.
FEW_WORDS = 3

Length = Callable[[str], int]


class Lengths(NamedTuple):
    """Of the texts, in words or tokens."""

    median: int
    most: int
    longest: int


class Tokenizer(NamedTuple):
    """What measures in a model's tokens.

    Attributes:
        length: Tokens of a text, none added.
        window: The most tokens the model reads; None where its config does not say.
    """

    length: Length
    window: int | None


@dataclass
class TableSummary:
    """What was summary.

    Attributes:
        counts: Rows, labels, and what was dropped.
        words: Of each kept text.
        explanation_words: Of each explanation.
        tokens: Of each kept text; empty without a tokenizer.
        row_tokens: Of each text with its explanation, likewise.
        near_empty: Texts of fewer than `FEW_WORDS` words.
    """

    counts: Counts = field(default_factory=Counts)
    words: array[int] = field(default_factory=lambda: array("L"))
    explanation_words: array[int] = field(default_factory=lambda: array("L"))
    tokens: array[int] = field(default_factory=lambda: array("L"))
    row_tokens: array[int] = field(default_factory=lambda: array("L"))
    near_empty: int = 0

    def too_long(self, prompt: str, labels: tuple[str, ...], length: Length, limit: int) -> int:
        """Rows that do not fit a limit, in tokens, with prompt, longest label and explanation.

        The parts are measured one by one, so a row within two or three tokens of the limit may
        be counted wrongly.
        """
        around = length(prompt.replace(TEXT, "")) + 2  # the begin and the end of a text
        around += max(length(TARGET_DELIMITER + label) for label in labels)
        return int((np.array(self.row_tokens, dtype=np.int64) + around > limit).sum())


def summarise(
    data: Data,
    columns: Columns,
    length: Length | None,
    on_row: Callable[[], object],
    twins: Twins = "refuse",
) -> TableSummary:
    """Read a table once.

    Args:
        data: Where it is.
        columns: What to read of it.
        length: Measures in tokens; None to do without.
        on_row: Called for each row that is kept.
        twins: As of `labelled_table.read_table`.

    Raises:
        UserError: As `labelled_table.read_table`.
    """
    summary = TableSummary()
    for record in read_table(data, columns, summary.counts, option="--data", twins=twins):
        words = len(record.text.split())
        summary.words.append(words)
        summary.near_empty += words < FEW_WORDS
        if record.explanation:
            summary.explanation_words.append(len(record.explanation.split()))
        if length is not None:
            tokens = length(record.text)
            summary.tokens.append(tokens)
            summary.row_tokens.append(tokens + length("\n" + (record.explanation or "")))
        on_row()
    return summary


def lengths(numbers: array[int]) -> Lengths:
    """Median, 95th percentile (a length that occurs) and maximum."""
    found = np.array(numbers)
    median, most = np.percentile(found, [50, 95], method="higher")
    return Lengths(int(median), int(most), int(found.max()))


def local_tokenizer(model: str) -> Tokenizer | None:
    """A model's tokenizer, if it is on this machine; nothing is downloaded."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model, local_files_only=True, trust_remote_code=False
        )
        config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return None

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    return Tokenizer(length, getattr(config, "max_position_embeddings", None))
