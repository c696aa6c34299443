"""Number of tokens that a run trains on: tokenizes its files as the training does, in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regreason_plugin.train.chat_template import uses_chat_template
from regreason_plugin.train.data_files import Sources
from regreason_plugin.train.families import TokenRow, token_rows
from regreason_plugin.train.label_span import label_cuts, locate_labels
from regreason_plugin.train.row_tokens import IGNORE, load_reference
from regreason_plugin.train.strategy import RegReasonStrategy, row_lengths


@dataclass(frozen=True)
class TokenCounts:
    """Numbers of tokens in the train rows of one epoch.

    Attributes:
        lengths: Number of tokens in each row.
        label: Number of label tokens.
        other: Number of other target tokens: those of explanations and the ends of text.
        by_label: Number of tokens in each label, by the label's text.
        rows: The rows.
    """

    lengths: tuple[int, ...]
    label: int
    other: int
    by_label: Mapping[str, int]
    rows: Sequence[TokenRow]

    @property
    def target(self) -> int:
        """Number of tokens that the loss is taken on."""
        return self.label + self.other


def load_tokenizer_quietly(cfg: Any) -> Any:
    """Load Axolotl's tokenizer; files for output_dir go to a temporary folder instead."""
    from axolotl.loaders import load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        output_dir, cfg.output_dir = cfg.output_dir, folder
        try:
            return load_tokenizer(cfg)
        finally:
            cfg.output_dir = output_dir


def tokenize_file(cfg: Any, sources: Sources, name: str, tokenizer: Any) -> Any:
    """Tokenize the rows of one file as Axolotl does for a training.

    Args:
        cfg: The config as Axolotl has validated it.
        sources: The data that the config trains on.
        name: Name of a file in the data folder.
        tokenizer: The tokenizer as Axolotl loads it.

    Returns:
        A dataset in memory with ``input_ids`` and ``labels``.

    Raises:
        UserError: The tokenizer cannot be used for training and evaluation alike.
    """
    from axolotl.prompt_strategies import load
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    rows = Dataset.from_list(
        [row.model_dump(include={"id", "axis", "messages"}) for row in sources.folder.rows(name)]
    )
    if uses_chat_template(cfg):
        strategy = load("chat_template", tokenizer, cfg, cfg.datasets[0])
        return rows.map(
            strategy.tokenize_prompt,
            batched=strategy.supports_batched,
            remove_columns=rows.column_names,
            keep_in_memory=True,
            load_from_cache_file=False,
        )
    strategy = RegReasonStrategy(tokenizer, sources.folder, load_reference(cfg))
    return strategy.wrap_dataset(rows, keep_in_memory=True)


def count_tokens(cfg: Any, sources: Sources, tokenizer: Any) -> TokenCounts:
    """Tokenize the train files of a run, and count their tokens.

    Args:
        cfg: The config as Axolotl has validated it.
        sources: The data that the config trains on.
        tokenizer: The tokenizer as Axolotl loads it.

    Raises:
        UserError: As `tokenize_file`, or a row has no label at the expected position.
    """
    folder = sources.folder
    files = {name: tokenize_file(cfg, sources, name, tokenizer) for name in sources.files}
    lengths = [length for tokenized in files.values() for length in row_lengths(tokenized)]
    labels = [row for tokenized in files.values() for row in tokenized["labels"]]
    texts = folder.declaration.written
    place = locate_labels(labels, sources.labels(), tokenizer, folder.order, texts)
    label = other = 0
    for row in labels:
        target = [token for token in row if token != IGNORE]
        tokens = place.of(target)
        assert tokens is not None  # `locate_labels` refuses a row without a label
        label += len(tokens)
        other += len(target) - len(tokens)
    rows = [
        row
        for name, tokenized in files.items()
        for row in token_rows(tokenized, folder.rows(name), place)
    ]
    return TokenCounts(tuple(lengths), label, other, label_cuts(place, tokenizer), rows)
