"""Number of steps and epochs that a training will take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regreason_plugin.train.budget import warm_up


@dataclass(frozen=True)
class Schedule:
    """Length of a run.

    Attributes:
        batch: Number of rows in an optimizer step over all processes; of sequences, if rows are
            packed.
        steps: Number of optimizer steps.
        epochs: Number of passes over the train rows.
        warm_up: Number of steps in which the learning rate rises.
    """

    batch: int
    steps: int
    epochs: float
    warm_up: int


def plan(cfg: Any, lengths: Sequence[int], target_tokens: int, processes: int) -> Schedule:
    """Compute a run's length as the trainer does; with budget ``tokens``, to within one step.

    Args:
        cfg: The config as Axolotl has validated it.
        lengths: Number of tokens in each train row.
        target_tokens: Number of target tokens in one epoch.
        processes: Number of processes that train.
    """
    apart = processes // (cfg.context_parallel_size or 1) // (cfg.tensor_parallel_size or 1)
    micro, accumulated = cfg.micro_batch_size, cfg.gradient_accumulation_steps
    batches = (
        _packed_batches(cfg, lengths, apart)
        if cfg.sample_packing
        else math.ceil(math.ceil(len(lengths) / micro) / apart)
    )
    an_epoch = math.ceil(batches / accumulated)
    if cfg.regreason_budget == "steps":
        steps = cfg.max_steps
    elif cfg.regreason_budget == "tokens":
        steps = math.ceil(cfg.regreason_target_tokens * an_epoch / target_tokens)
    else:
        steps = math.ceil(cfg.num_epochs * an_epoch)
    return Schedule(micro * accumulated * apart, steps, steps / an_epoch, warm_up(cfg, steps))


def _packed_batches(cfg: Any, lengths: Sequence[int], apart: int) -> int:
    """Number of batches of packed rows per process and epoch."""
    from regreason_plugin.train.whole_epoch_sampler import WholeEpochSampler

    real = cfg.multipack_real_batches
    real = not cfg.attn_supports_packing if real is None else real
    sampler = WholeEpochSampler(
        range(len(lengths)),
        lengths=np.array(lengths),
        batch_size=cfg.micro_batch_size if real else 1,
        batch_max_len=cfg.sequence_len * (1 if real else cfg.micro_batch_size),
        group_size=cfg.sample_packing_group_size,
        bin_size=cfg.sample_packing_bin_size,
        processes=apart,
    )
    return len(sampler) // apart
