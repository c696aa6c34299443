"""How many tokens a run trains on: its files tokenized as in training, in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regreason_plugin.train.chat_template import uses_chat_template
from regreason_plugin.train.data_files import Sources
from regreason_plugin.train.label_span import label_cuts, locate_labels
from regreason_plugin.train.row_tokens import IGNORE, load_reference
from regreason_plugin.train.strategy import RegReasonStrategy, row_lengths


@dataclass(frozen=True)
class TokenCounts:
    """The train rows of one epoch, in tokens.

    Attributes:
        lengths: Of each row.
        label: Tokens of labels.
        other: Target tokens that are no label's: the explanation's, the end of text.
        by_label: Into how many tokens each label is cut.
    """

    lengths: tuple[int, ...]
    label: int
    other: int
    by_label: Mapping[str, int]

    @property
    def target(self) -> int:
        """Tokens that the loss is taken on."""
        return self.label + self.other


def load_tokenizer_quietly(cfg: Any) -> Any:
    """Axolotl's tokenizer; what it would write into output_dir goes nowhere."""
    from axolotl.loaders import load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        given, cfg.output_dir = cfg.output_dir, folder
        try:
            return load_tokenizer(cfg)
        finally:
            cfg.output_dir = given


def tokenize_file(cfg: Any, sources: Sources, name: str, tokenizer: Any) -> Any:
    """One file's rows as Axolotl would train on them.

    Args:
        cfg: The config as Axolotl has validated it.
        sources: What it trains on.
        name: Of a file in the data folder.
        tokenizer: As Axolotl loads it.

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
    """Tokenize the train files of a run and count.

    Args:
        cfg: The config as Axolotl has validated it.
        sources: What it trains on.
        tokenizer: As Axolotl loads it.

    Raises:
        UserError: As `tokenize_file`, or the labels are not where they have to be.
    """
    lengths: list[int] = []
    labels: list[list[int]] = []
    for name in sources.files:
        tokenized = tokenize_file(cfg, sources, name, tokenizer)
        lengths += row_lengths(tokenized)
        labels += tokenized["labels"]
    folder = sources.folder
    texts = folder.declaration.written
    place = locate_labels(labels, sources.labels(), tokenizer, folder.order, texts)
    label = other = 0
    for row in labels:
        target = [token for token in row if token != IGNORE]
        tokens = place.of(target)
        assert tokens is not None  # or `locate_labels` had refused the row
        label += len(tokens)
        other += len(target) - len(tokens)
    return TokenCounts(tuple(lengths), label, other, label_cuts(place, tokenizer))
