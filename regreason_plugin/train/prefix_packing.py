"""Prefix packing: which configs allow it, and whether a model reads packed rows correctly.

With `regreason_prefix_packing`, train rows that share a prefix, such as a conversation's three
axes, are drawn into the same batch (`train.families`) and computed as one tree
(`train.packed_batch`). Loss and gradients of a batch are those of its plain rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from regreason_plugin.core.errors import UserError, stop_on_user_error
from regreason_plugin.packing.packing_check import difference
from regreason_plugin.packing.prefix_tree import LONGEST_ROW, PrefixRow, Tokens, packed_rows
from regreason_plugin.packing.row_batch import batch_inputs
from regreason_plugin.probes.anatomy import text_config
from regreason_plugin.probes.forward import logits_at
from regreason_plugin.train.families import Families, Family, TokenRow, find_families
from regreason_plugin.train.findings import Finding, finding
from regreason_plugin.train.target_logits import NEEDS_ALL_LOGITS

KEY = "regreason_prefix_packing"
# Attention that takes a mask of its own for every row.
_ATTENTION = (None, "sdpa", "eager")
# Keys that draw the rows in another way, or change a row's tokens by its neighbours.
_OFF = {
    "group_by_length": "it draws rows by their length",
    "curriculum_sampling": "it draws rows in the order of the file",
    "neftune_noise_alpha": "its noise depends on the length of a row",
    "shuffle_before_merging_datasets": "the plugin draws the rows itself",
}


def check_prefix_packing(cfg: Any, config: str | None) -> Iterator[Finding]:
    """Find keys with which rows cannot be packed by their prefixes.

    Args:
        cfg: The config as Axolotl has validated it, because validation chooses the attention.
        config: Name of the config in a finding.
    """

    def error(field: str, message: str) -> Finding:
        return finding("error", message, path=config, field=field)

    if not getattr(cfg, KEY, None):
        return
    for key, why in _OFF.items():
        if getattr(cfg, key, None):
            yield error(key, f"must be left out with {KEY}: {why}")
    if getattr(cfg, "regreason_target_logits", True) is False:
        yield error("regreason_target_logits", f"must be true with {KEY}")
    for key in NEEDS_ALL_LOGITS:
        if getattr(cfg, key, None):
            yield error(key, f"must be off with {KEY}: it needs all logits of plain rows")
    if (getattr(cfg, "context_parallel_size", None) or 1) > 1:
        yield error("context_parallel_size", f"must be 1 with {KEY}: it splits rows over devices")
    attention = getattr(cfg, "attn_implementation", None)
    if attention not in _ATTENTION:
        yield error(
            "attn_implementation",
            f"is {attention}, which cannot read several prompts in one row; set it to sdpa, or "
            f"{KEY} to false",
        )
    if (getattr(cfg, "micro_batch_size", None) or 1) < 2 and not getattr(
        cfg, "sample_packing", None
    ):
        yield error(
            "micro_batch_size",
            f"must be at least 2 with {KEY}, because rows can only share what is in the same "
            "batch; a number of whole conversations is best, such as 6 or 12 for three axes",
        )


def keep_order(cfg: Any) -> None:
    """Let Axolotl keep the order of the files, by which the plugin knows each row's conversation.

    The plugin itself draws the rows at random.

    Args:
        cfg: The config as written; changed in place.
    """
    if cfg.get(KEY):
        cfg["shuffle_merged_datasets"] = False


def families_of(cfg: Any, rows: Sequence[TokenRow]) -> Families:
    """The families that a training draws: as large as a batch, or as a packed sequence, allows.

    Args:
        cfg: The config as Axolotl has validated it.
        rows: All train rows.
    """
    if cfg.sample_packing:
        return find_families(rows, most_tokens=cfg.sequence_len)
    return find_families(rows, most_rows=cfg.micro_batch_size)


class PackingCheckCallback(TrainerCallback):
    """Compares packed rows with plain ones on this model and these data, before the first step.

    Args:
        trainer: The trainer, with its `Families`.
        rows: All train rows.
    """

    def __init__(self, trainer: Any, rows: Sequence[TokenRow]) -> None:
        self._trainer = trainer
        self._rows = rows

    @stop_on_user_error()
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse a model that would train differently on packed rows.

        Raises:
            UserError: The model's output differs; the message says by how much, or why.
        """
        chosen = _to_check(self._trainer.families.families, self._rows)
        if not chosen:
            return
        model = self._trainer.model
        training = model.training
        devices = [args.device] if args.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            model.eval()
            try:
                # Every process checks the same rows: a forward pass needs all processes if the
                # weights are sharded over them.
                mistake = _mistake(self._trainer, chosen, self._rows, args.device)
            finally:
                model.train(training)
        if mistake is not None:
            base = model.get_base_model() if hasattr(model, "get_base_model") else model
            raise UserError(
                f"{type(base).__name__} cannot train on several prompts in one row ({mistake}); "
                "set it to false",
                path=self._trainer.axolotl_cfg.axolotl_config_path,
                field=KEY,
            )


def _to_check(families: Sequence[Family], rows: Sequence[TokenRow]) -> list[Family]:
    """The families in which a mistake would be largest: most packed, longest; and the shortest."""

    def saved(family: Family) -> int:
        return sum(len(rows[row].ids) for row in family.rows) - family.distinct

    shared = [family for family in families if len(family.rows) > 1]
    if not shared:
        return []
    longest = max(shared, key=lambda family: max(len(rows[row].ids) for row in family.rows))
    chosen = (max(shared, key=saved), longest, min(shared, key=lambda family: family.distinct))
    return list(dict.fromkeys(chosen))


def _mistake(
    trainer: Any, families: Sequence[Family], rows: Sequence[TokenRow], device: torch.device
) -> str | None:
    model = trainer.model
    targets: dict[Tokens, int] = {}
    for family in families:
        for number in family.rows:
            row = rows[number]
            targets[tuple(row.ids.tolist())] = len(row.ids) - row.prompt
    linear = 6 * text_config(model).hidden_size
    trees = [tree for tree in packed_rows(targets, linear, LONGEST_ROW) if tree.branches]
    trees.sort(key=lambda tree: -len(tree.tokens))

    def read(
        batch: Sequence[PrefixRow], chosen: Collection[Tokens], padded_to: int
    ) -> dict[Tokens, Tensor]:
        places = [
            (number, sequence, row.paths[sequence][-targets[sequence] - 1 : -1])
            for number, row in enumerate(batch)
            for sequence in row.paths
            if sequence in chosen
        ]
        inputs, within = batch_inputs(batch, model, device, padded_to)
        at_rows = [number for number, _, path in places for _ in path]
        columns = [column for _, _, path in places for column in path]
        with within, trainer.accelerator.autocast():
            logits, _ = logits_at(model, inputs, at_rows, columns)
        lengths = [len(path) for _, _, path in places]
        parts = torch.split(logits.float().log_softmax(dim=-1), lengths)
        return {sequence: part for (_, sequence, _), part in zip(places, parts, strict=True)}

    dtype = torch.get_autocast_dtype(device.type) if _autocasts(trainer) else model.dtype
    return difference(trees, [[tree] for tree in trees], read, dtype) if trees else None


def _autocasts(trainer: Any) -> bool:
    return trainer.accelerator.mixed_precision in ("bf16", "fp16")
