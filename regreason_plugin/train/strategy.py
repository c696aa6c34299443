"""The dataset strategy for base models: `type: regreason_plugin.train.strategy`.

Axolotl calls `load`; a model with a chat template uses `type: chat_template` instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from axolotl.integrations.base import PluginManager
from axolotl.prompt_tokenizers import DatasetWrappingStrategy

from regreason_plugin.core.errors import UserError, stop_on_user_error
from regreason_plugin.data_folder.folder import DataFolder, open_data_folder
from regreason_plugin.data_folder.scopes import place_of
from regreason_plugin.data_folder.split import SPLITS
from regreason_plugin.train.findings import Finding, finding, raise_first
from regreason_plugin.train.row_tokens import RowTokenizer, load_reference

# Rows on which Axolotl's tokenizer is held against the one lm-eval loads.
_COMPARED = 32


class RegReasonStrategy(DatasetWrappingStrategy):  # type: ignore[misc]  # axolotl is untyped
    """Tokenizes a data folder's rows as lm-eval will score them.

    Args:
        tokenizer: As Axolotl loaded it.
        folder: The data folder.
        reference: The tokenizer as lm-eval loads it, which must cut text the same.
        sequence_len: Refuse files with longer rows; None for any length.
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
            dataset: Rows of a data folder, as `datasets` read them.
            process_count: How many processes may share the work.
            keep_in_memory: Do not write the result to the cache folder.

        Returns:
            The dataset with ``input_ids``, ``attention_mask`` and ``labels`` only.
        """
        with stop_on_user_error():
            first = dataset[:_COMPARED]
            if _columns(first, self._tokens) != _columns(first, self._reference):
                raise UserError(
                    "this config makes a tokenizer that cuts text differently from the "
                    "AutoTokenizer of the base model, which lm-eval loads; leave out "
                    "tokenizer_type, tokenizer_use_fast, tokenizer_legacy, tokens and "
                    "added_tokens_overrides"
                )
            tokenized = dataset.map(
                partial(_columns, tokens=self._tokens),
                batched=True,
                num_proc=process_count,
                remove_columns=dataset.column_names,
                keep_in_memory=bool(keep_in_memory),
                # Axolotl keeps the result under a key that knows the content; this
                # cache's key would be the pickled tokenizer, which is not stable.
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
    """How many tokens each row of a tokenized dataset has."""
    return [
        len(ids)
        for batch in tokenized.select_columns("input_ids").iter(1000)
        for ids in batch["input_ids"]
    ]


def check_lengths(
    lengths: Sequence[int], sequence_len: int, *, name: str = "", config: str | None = None
) -> Iterator[Finding]:
    """Rows that are too long, which Axolotl would stop at without saying how many.

    Args:
        lengths: In tokens.
        sequence_len: The longest allowed.
        name: Of the file.
        config: What to call the config.
    """
    longer = sum(length > sequence_len for length in lengths)
    if longer:
        yield finding(
            "error",
            f"{longer} of {len(lengths)} rows{name and f' of {name}'} are longer than "
            f"{sequence_len} tokens, the longest {max(lengths)}; raise it, or build the data again "
            "with --max-prompt-tokens, which cuts every arm alike",
            path=config,
            field="sequence_len",
        )


def load(tokenizer: Any, cfg: Any, ds_cfg: Any = None) -> RegReasonStrategy:
    """What Axolotl calls for ``type: regreason_plugin.train.strategy``."""
    with stop_on_user_error():
        plugins = PluginManager.get_instance().plugins
        if not any(name.endswith(".RegReasonPlugin") for name in plugins):
            raise UserError(
                "type: regreason_plugin.train.strategy needs "
                "`plugins: [regreason_plugin.train.RegReasonPlugin]`, which checks the "
                "config and the data",
                path=cfg.axolotl_config_path,
                field="plugins",
            )
        folder = open_data_folder(place_of(Path(ds_cfg["path"]), SPLITS[:2]).folder)
        return RegReasonStrategy(tokenizer, folder, load_reference(cfg), cfg.sequence_len)
