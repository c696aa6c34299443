"""How many steps Axolotl will take, and how many epochs those are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """The steps of a run.

    Attributes:
        batch: Rows of an optimizer step over all processes; sequences, if rows are packed.
        steps: Optimizer steps.
        epochs: Passes over the train rows that these are.
        warm_up: Steps in which the learning rate rises.
    """

    batch: int
    steps: int
    epochs: float
    warm_up: int


def plan(cfg: Any, lengths: Sequence[int], target_tokens: int, processes: int) -> Schedule:
    """Count as Axolotl and its trainer do.

    Axolotl divides all rows of all epochs by the batch and stops there, while the trainer ends
    every epoch with a step of what is left. So where the rows do not divide by the batch, the
    last epoch is cut short.

    Args:
        cfg: The config as Axolotl has validated it.
        lengths: Tokens of each train row.
        target_tokens: Of one epoch.
        processes: How many train.
    """
    apart = processes // (cfg.context_parallel_size or 1) // (cfg.tensor_parallel_size or 1)
    micro, accumulated = cfg.micro_batch_size, cfg.gradient_accumulation_steps
    batch = micro * accumulated * apart
    if cfg.sample_packing:
        planned = _packed_steps(cfg, lengths, batch)
        an_epoch = planned / cfg.num_epochs
    else:
        planned = math.ceil(len(lengths) * cfg.num_epochs / batch)
        batches = math.ceil(math.ceil(len(lengths) / micro) / apart)
        an_epoch = math.ceil(batches / accumulated)
    steps = cfg.max_steps or planned
    if cfg.regreason_budget == "tokens" and cfg.regreason_target_tokens:
        steps = math.ceil(cfg.regreason_target_tokens * an_epoch / target_tokens)
    counted = min(planned, cfg.max_steps) if cfg.max_steps else planned
    return Schedule(batch, steps, steps / an_epoch, _warm_up(cfg, counted))


def _warm_up(cfg: Any, steps: int) -> int:
    # (Axolotl makes two of a single step.)
    if cfg.warmup_steps is not None:
        given = int(cfg.warmup_steps)
    elif cfg.warmup_ratio is not None:
        given = int(cfg.warmup_ratio * steps)
    else:
        given = min(int(0.03 * steps), 100)
    return 2 if given == 1 else given


def _packed_steps(cfg: Any, lengths: Sequence[int], batch: int) -> int:
    """Axolotl's own count; the packing is random, so the next one may differ by a step."""
    from axolotl.utils.trainer import calculate_total_num_steps
    from datasets import Dataset

    rows = Dataset.from_dict({"input_ids": [[0]] * len(lengths), "length": list(lengths)})
    counted = type(cfg)(
        {
            **cfg,
            "batch_size": batch,
            "dataset_num_proc": 1,
            "total_num_tokens": sum(lengths),
            "total_supervised_tokens": 1,  # counted elsewhere
        }
    )
    return max(int(calculate_total_num_steps(counted, rows, update=False)), 1)
