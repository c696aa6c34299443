"""Number of steps and epochs that a training will take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from regreason_plugin.train.budget import warm_up
from regreason_plugin.train.check.token_counts import TokenCounts
from regreason_plugin.train.families import Families
from regreason_plugin.train.prefix_packing import families_of


@dataclass(frozen=True)
class Schedule:
    """Length of a run.

    Attributes:
        batch: Number of rows in an optimizer step over all processes; of sequences, if rows are
            packed.
        steps: Number of optimizer steps.
        epochs: Number of passes over the train rows.
        warm_up: Number of steps in which the learning rate rises.
        packed_tokens: Number of tokens that the model reads in an epoch with prefix packing,
            whether or not it is on; None if not known.
    """

    batch: int
    steps: int
    epochs: float
    warm_up: int
    packed_tokens: int | None = None


def plan(cfg: Any, rows: int, processes: int, tokens: TokenCounts | None = None) -> Schedule | None:
    """Compute a run's length as the trainer does; with budget ``tokens``, to within one step.

    Args:
        cfg: The config as Axolotl has validated it.
        rows: Number of train rows.
        processes: Number of processes that train.
        tokens: Tokens of the train rows; None if not known.

    Returns:
        The length; None if it depends on tokens that are not known.
    """
    packs, by_tokens = cfg.regreason_prefix_packing, cfg.regreason_budget == "tokens"
    if tokens is None and (packs or by_tokens or cfg.sample_packing):
        return None
    apart = processes // (cfg.context_parallel_size or 1) // (cfg.tensor_parallel_size or 1)
    micro, accumulated = cfg.micro_batch_size, cfg.gradient_accumulation_steps
    packed_tokens = None
    batches = math.ceil(math.ceil(rows / micro) / apart)
    if tokens is not None:
        families = families_of(cfg, tokens.rows)
        together = _batches(cfg, families, tokens, apart)
        packed_tokens = families.tokens(together * apart)
        if packs:
            batches = together
        elif cfg.sample_packing:
            batches = _batches(cfg, None, tokens, apart)
    an_epoch = math.ceil(batches / accumulated)
    if cfg.regreason_budget == "steps":
        steps = cfg.max_steps
    elif tokens is not None and by_tokens:
        steps = math.ceil(cfg.regreason_target_tokens * an_epoch / tokens.target)
    else:
        steps = math.ceil(cfg.num_epochs * an_epoch)
    batch = micro * accumulated * apart
    return Schedule(batch, steps, steps / an_epoch, warm_up(cfg, steps), packed_tokens)


def _batches(cfg: Any, families: Families | None, tokens: TokenCounts, apart: int) -> int:
    """Number of batches per process and epoch, with sample packing, families or both."""
    from regreason_plugin.train.whole_epoch_sampler import FamilySampler, WholeEpochSampler

    if families is not None and not cfg.sample_packing:
        numbers = range(len(families.rows))
        return len(FamilySampler(numbers, families.rows, cfg.micro_batch_size, apart)) // apart
    lengths = np.array(tokens.lengths) if families is None else families.own_tokens
    real = cfg.multipack_real_batches
    real = not cfg.attn_supports_packing if real is None else real
    longest = cfg.sequence_len * (1 if real else cfg.micro_batch_size)
    sampler = WholeEpochSampler(
        range(len(lengths)),
        lengths=lengths,
        batch_size=cfg.micro_batch_size if real else 1,
        batch_max_len=longest - (families.shared if families else 0),
        group_size=cfg.sample_packing_group_size,
        bin_size=cfg.sample_packing_bin_size,
        processes=apart,
        families=families.rows if families else None,
    )
    return len(sampler) // apart
