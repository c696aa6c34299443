"""The dataset strategy for base models: `type: regreason_plugin.train.strategy`.

Axolotl calls `load`. A model with a chat template uses `type: chat_template` instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from axolotl.integrations.base import PluginManager
from axolotl.prompt_tokenizers import DatasetWrappingStrategy

from regreason_plugin.core.errors import UserError, stop_on_user_error
from regreason_plugin.core.splits import SPLITS
from regreason_plugin.data_folder.folder import DataFolder, open_data_folder
from regreason_plugin.data_folder.scopes import parse_arm_path
from regreason_plugin.train.findings import Finding, finding, raise_first
from regreason_plugin.train.row_tokens import RowTokenizer, load_reference

# Number of rows on which Axolotl's tokenizer is compared with the one that lm-eval loads.
_COMPARED = 32


class RegReasonStrategy(DatasetWrappingStrategy):  # type: ignore[misc]  # axolotl is untyped
    """Tokenizes the rows of a data folder into the tokens that lm-eval scores.

    Args:
        tokenizer: The tokenizer that Axolotl loaded.
        folder: The data folder.
        reference: The tokenizer that lm-eval loads; it must split text in the same way.
        sequence_len: Longest row allowed, in tokens; a file with a longer row is an error. None
            for no limit.
    """

    def __init__(
        self,
        tokenizer: Any,
        folder: DataFolder,
        reference: Any,
        sequence_len: int | None = None,
    ) -> None:
        self._sequence_len = sequence_len
        labels = folder.declaration.written
        self._tokens = RowTokenizer(tokenizer, folder.order, labels)
        self._reference = RowTokenizer(reference, folder.order, labels)

    def wrap_dataset(
        self,
        dataset: Any,
        process_count: int | None = None,
        keep_in_memory: bool | None = False,
        **_: Any,
    ) -> Any:
        """Tokenize a dataset.

        Args:
            dataset: Rows of a data folder, as read by `datasets`.
            process_count: Number of processes that tokenize.
            keep_in_memory: Whether to keep the result in memory, not in the cache folder.

        Returns:
            The dataset with ``input_ids``, ``attention_mask`` and ``labels`` only.
        """
        with stop_on_user_error():
            first = dataset[:_COMPARED]
            if _columns(first, self._tokens) != _columns(first, self._reference):
                raise UserError(
                    "with this config, Axolotl's tokenizer splits text differently from the "
                    "base model's AutoTokenizer, which lm-eval loads; leave out "
                    "tokenizer_type, tokenizer_use_fast, tokenizer_legacy, tokens and "
                    "added_tokens_overrides"
                )
            tokenized = dataset.map(
                partial(_columns, tokens=self._tokens),
                batched=True,
                num_proc=process_count,
                remove_columns=dataset.column_names,
                keep_in_memory=bool(keep_in_memory),
                # Axolotl caches the result under a key made from the content. The key of this
                # cache is made from the pickled tokenizer, which differs between runs.
                load_from_cache_file=False,
                desc="Tokenizing rows",
            )
            if self._sequence_len is not None:
                raise_first(check_lengths(row_lengths(tokenized), self._sequence_len))
            return tokenized


def _columns(batch: dict[str, list[Any]], tokens: RowTokenizer) -> dict[str, list[list[int]]]:
    rows = tokens.tokenize(
        [f"{row}, axis {axis}" for row, axis in zip(batch["id"], batch["axis"], strict=True)],
        [messages[0]["content"] for messages in batch["messages"]],
        [messages[1]["content"] for messages in batch["messages"]],
    )
    return {
        "input_ids": [row.input_ids for row in rows],
        "attention_mask": [[1] * len(row.input_ids) for row in rows],
        "labels": [row.labels for row in rows],
    }


def row_lengths(tokenized: Any) -> list[int]:
    """Number of tokens in each row of a tokenized dataset."""
    return [
        len(ids)
        for batch in tokenized.select_columns("input_ids").iter(1000)
        for ids in batch["input_ids"]
    ]


def check_lengths(
    lengths: Sequence[int], sequence_len: int, *, name: str = "", config: str | None = None
) -> Iterator[Finding]:
    """Count rows that are too long; Axolotl would stop without saying how many there are.

    Args:
        lengths: Number of tokens in each row.
        sequence_len: Longest row allowed, in tokens.
        name: Name of the file in the message.
        config: Name of the config in the message.
    """
    longer = sum(length > sequence_len for length in lengths)
    if longer:
        yield finding(
            "error",
            f"{longer} of {len(lengths)} rows{name and f' of {name}'} are longer than "
            f"{sequence_len} tokens, the longest has {max(lengths)}; raise sequence_len, or build "
            "the data again with --max-prompt-tokens, which shortens every arm equally",
            path=config,
            field="sequence_len",
        )


def load(tokenizer: Any, cfg: Any, ds_cfg: Any = None) -> RegReasonStrategy:
    """Make the strategy; Axolotl calls this for ``type: regreason_plugin.train.strategy``."""
    with stop_on_user_error():
        plugins = PluginManager.get_instance().plugins
        if not any(name.endswith(".RegReasonPlugin") for name in plugins):
            raise UserError(
                "type: regreason_plugin.train.strategy needs "
                "`plugins: [regreason_plugin.RegReasonPlugin]`, which checks the "
                "config and the data",
                path=cfg.axolotl_config_path,
                field="plugins",
            )
        folder = open_data_folder(parse_arm_path(Path(ds_cfg["path"]), SPLITS[:2]).folder)
        return RegReasonStrategy(tokenizer, folder, load_reference(cfg), cfg.sequence_len)
