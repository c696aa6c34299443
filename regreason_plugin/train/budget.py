"""The budget, which is the same in every arm: rows and epochs, optimizer steps, or target tokens.

Every budget is converted to a number of steps before the learning-rate schedule is made, so that
the schedule ends where the training ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

import numpy as np
import torch

from regreason_plugin.core.errors import UserError
from regreason_plugin.train.row_tokens import IGNORE

# The key that sets the length of a training, by budget. A config must set the key of its own
# budget and leave the others out.
_LENGTHS = {"rows": None, "steps": "max_steps", "tokens": "regreason_target_tokens"}


def check_budget(cfg: Mapping[str, Any], config: str) -> None:
    """Refuse a config whose length is not given in the unit of its budget.

    Args:
        cfg: The config as written.
        config: Name of the config in an error.

    Raises:
        UserError: The budget's key is missing, or the key of another budget is set.
    """
    budget = cfg.get("regreason_budget") or "rows"
    if budget not in _LENGTHS:
        raise UserError("must be rows, steps or tokens", path=config, field="regreason_budget")
    for other, key in _LENGTHS.items():
        value = cfg.get(key) if key else None
        if key and other == budget and not (isinstance(value, int) and value > 0):
            raise UserError(
                f"must be a number above 0 with regreason_budget: {budget}", path=config, field=key
            )
        if key and other != budget and value is not None:
            raise UserError(
                f"belongs to regreason_budget: {other}, but the budget is {budget}; write "
                f"regreason_budget: {other}, or leave {key} out",
                path=config,
                field=key,
            )
    if budget == "tokens":
        for key in ("num_epochs", "group_by_length"):
            if cfg.get(key):
                raise UserError(
                    "must be left out with regreason_budget: tokens, where "
                    "regreason_target_tokens sets the length of the training",
                    path=config,
                    field=key,
                )


def set_length(cfg: Any, trainer: Any) -> None:
    """Set a trainer's number of steps, warm-up included.

    Axolotl's own number is rows x epochs / batch size. It ends inside the last epoch if an epoch
    is not a whole number of steps.

    Args:
        cfg: The config as Axolotl has normalised it.
        trainer: A trainer that has not started.
    """
    steps = _steps(cfg, trainer)
    trainer.args.max_steps = steps
    trainer.args.warmup_steps = warm_up(cfg, steps)


def warm_up(cfg: Any, steps: int) -> int:
    """Number of steps in which the learning rate rises.

    The rule is Axolotl's, which applies it to a different number of steps (see `set_length`).

    Args:
        cfg: The config as Axolotl has validated it.
        steps: Number of steps in the training.
    """
    if cfg.warmup_steps is not None:
        warmup = int(cfg.warmup_steps)
    elif cfg.warmup_ratio is not None:
        warmup = int(cfg.warmup_ratio * steps)
    else:
        warmup = min(int(0.03 * steps), 100)
    return 2 if warmup == 1 else warmup


def _steps(cfg: Any, trainer: Any) -> int:
    if cfg.regreason_budget == "steps":
        return int(cfg.max_steps)
    loader = trainer.get_train_dataloader()
    if cfg.regreason_budget == "tokens":
        return _steps_to(cfg.regreason_target_tokens, loader, trainer)
    accumulated: int = trainer.args.gradient_accumulation_steps
    epochs: float = cfg.num_epochs
    return math.ceil(epochs * math.ceil(len(loader) / accumulated))


def _steps_to(tokens: int, loader: Any, trainer: Any) -> int:
    """Number of steps until ``tokens`` target tokens are trained on, over all processes."""
    lengths = target_lengths(trainer.train_dataset)
    accumulated = trainer.args.gradient_accumulation_steps
    steps, seen = 0, 0
    for epoch in count():
        loader.set_epoch(epoch)
        batches = [sum(lengths[row] for row in _rows(batch)) for batch in loader.batch_sampler]
        by_step = torch.tensor(
            [sum(batches[at : at + accumulated]) for at in range(0, len(batches), accumulated)],
            device=trainer.accelerator.device,
        )
        for more in trainer.accelerator.reduce(by_step, reduction="sum").tolist():
            steps, seen = steps + 1, seen + more
            if seen >= tokens:
                return steps
    raise AssertionError("an epoch has tokens")


def target_lengths(dataset: Any) -> list[int]:
    """Number of target tokens in each row, those that the loss is taken on."""
    return [
        int((np.asarray(labels) != IGNORE).sum())
        for batch in dataset.select_columns("labels").iter(1000)
        for labels in batch["labels"]
    ]


def _rows(batch: Iterable[Any]) -> Iterable[int]:
    """The rows of a batch, whether its entries are rows or packs of rows."""
    for entry in batch:
        yield from entry if isinstance(entry, list) else (entry,)
