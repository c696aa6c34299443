"""Training with several processes on a machine without an accelerator, for trials and tests.

Axolotl and accelerate are made for GPUs. On a CPU, each process believes that it is the only one
and silently trains on all rows. The functions here connect the processes to each other. With a
GPU, or with a single process, they do nothing.
"""

from __future__ import annotations

import os
from typing import Any

import torch


def several_on_a_cpu() -> bool:
    """Whether this process is one of several on a machine without an accelerator."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and not torch.accelerator.is_available()


def join(cfg: Any) -> None:
    """Connect the processes to each other; call it before Axolotl asks for their number.

    Args:
        cfg: The config as the user wrote it; changed in place.
    """
    if not several_on_a_cpu():
        return
    from accelerate import PartialState

    if cfg.get("deepspeed"):
        # With `cpu=True` accelerate would silently leave DeepSpeed out.
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        PartialState(backend="gloo")
    else:
        # Accelerate chooses cpu:0, on which no optimizer state can be loaded.
        PartialState(cpu=True).device = torch.device("cpu")
    # Without this key, the trainer replaces the state by one for a single process.
    config = cfg.get("accelerator_config") or {}
    cfg["accelerator_config"] = {**config, "use_configured_state": True}


def place_model(cfg: Any) -> None:
    """Put the model on the CPU; Axolotl would interpret a process's rank as a GPU's number.

    Args:
        cfg: The config as Axolotl has normalised it; changed in place.
    """
    if several_on_a_cpu():
        cfg.device_map = {"": "cpu"}
