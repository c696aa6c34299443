"""Several processes on a machine without an accelerator, for trials and tests.

Axolotl and accelerate are made for GPUs. On a CPU, each process takes itself for the only one
and trains on all rows, without a word; this makes them know each other. With a GPU, or with a
single process, nothing here does anything.
"""

from __future__ import annotations

import os
from typing import Any

import torch


def several_on_a_cpu() -> bool:
    """Whether this is one of several processes, on a machine without an accelerator."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and not torch.accelerator.is_available()


def join(cfg: Any) -> None:
    """Let the processes find each other, before anything of Axolotl asks how many there are.

    Args:
        cfg: The config as written, which is changed.
    """
    if not several_on_a_cpu():
        return
    from accelerate import PartialState

    if cfg.get("deepspeed"):
        # (With `cpu=True` accelerate would leave DeepSpeed out, without a word.)
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        PartialState(backend="gloo")
    else:
        # (On cpu:0, as accelerate would have it, no optimizer state can be loaded.)
        PartialState(cpu=True).device = torch.device("cpu")
    # Or the trainer forgets the state, and makes one of a single process.
    given = cfg.get("accelerator_config") or {}
    cfg["accelerator_config"] = {**given, "use_configured_state": True}


def place_model(cfg: Any) -> None:
    """Put the model where it can only be; Axolotl takes a rank for the number of a GPU.

    Args:
        cfg: The config as Axolotl has normalised it, which is changed.
    """
    if several_on_a_cpu():
        cfg.device_map = {"": "cpu"}
