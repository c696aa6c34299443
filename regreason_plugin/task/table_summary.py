"""Summarises a labelled table for `regreason task new`: counts, lengths, near-empty texts."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from regreason_plugin.core.declaration import TEXT
from regreason_plugin.core.prompt import TARGET_DELIMITER
from regreason_plugin.core.splits import OnOverlap
from regreason_plugin.core.task_file import Columns, Data
from regreason_plugin.data.labelled_table import Counts, LookAlikes, read_table

# A text of fewer words says little about its label.
FEW_WORDS = 3

Length = Callable[[str], int]


class Lengths(NamedTuple):
    """The median, 95th percentile (``most``) and maximum of texts' lengths, in words or tokens."""

    median: int
    most: int
    longest: int


class Tokenizer(NamedTuple):
    """A model's tokenizer, as far as lengths are concerned.

    Attributes:
        length: Returns the number of tokens of a text, without special tokens.
        window: The most tokens that the model can read; None if its config does not say.
    """

    length: Length
    window: int | None


@dataclass
class TableSummary:
    """The summary of a table.

    Attributes:
        counts: The numbers of rows, labels and dropped rows.
        words: The number of words of each kept text.
        explanation_words: The number of words of each explanation.
        tokens: The number of tokens of each kept text; empty without a tokenizer.
        row_tokens: The number of tokens of each kept text with its explanation; empty without a
            tokenizer.
        near_empty: The number of texts of fewer than `FEW_WORDS` words.
    """

    counts: Counts = field(default_factory=Counts)
    words: array[int] = field(default_factory=lambda: array("L"))
    explanation_words: array[int] = field(default_factory=lambda: array("L"))
    tokens: array[int] = field(default_factory=lambda: array("L"))
    row_tokens: array[int] = field(default_factory=lambda: array("L"))
    near_empty: int = 0

    def too_long(self, prompt: str, labels: tuple[str, ...], length: Length, limit: int) -> int:
        """The number of rows that exceed a limit with prompt, longest label and explanation.

        The parts are measured separately, so a row within two or three tokens of the limit may be
        counted wrongly.

        Args:
            prompt: The prompt template.
            labels: The labels.
            length: Returns the number of tokens of a text.
            limit: The limit, in tokens.
        """
        around = length(prompt.replace(TEXT, "")) + 2  # tokens that begin and end a sequence
        around += max(length(TARGET_DELIMITER + label) for label in labels)
        return int((np.array(self.row_tokens, dtype=np.int64) + around > limit).sum())


def summarise(
    data: Data,
    columns: Columns,
    length: Length | None,
    on_row: Callable[[], object],
    twins: LookAlikes = "refuse",
    on_overlap: OnOverlap = "refuse",
) -> TableSummary:
    """Read a table once, and summarise it.

    Args:
        data: The table.
        columns: The columns to read.
        length: Returns the number of tokens of a text; None to count only words.
        on_row: Called for each row that is kept.
        twins: See `labelled_table.read_table`.
        on_overlap: See `labelled_table.read_table`.

    Raises:
        UserError: See `labelled_table.read_table`.
    """
    summary = TableSummary()
    rows = read_table(
        data, columns, summary.counts, option="--data", twins=twins, on_overlap=on_overlap
    )
    for record in rows:
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
    """The median, the 95th percentile and the maximum, each a length that occurs."""
    values = np.array(numbers)
    median, most = np.percentile(values, [50, 95], method="higher")
    return Lengths(int(median), int(most), int(values.max()))


def local_tokenizer(model: str) -> Tokenizer | None:
    """Load a model's tokenizer without downloading; None if it is not on this machine."""
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
