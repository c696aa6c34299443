"""The GPU, the driver and the package versions with which a figure was measured."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = (
    *("torch", "triton", "transformers", "tokenizers", "accelerate", "lm_eval", "datasets"),
    *("peft", "bitsandbytes", "axolotl"),
)


def machine() -> dict[str, Any]:
    """Describe this machine.

    Returns:
        ``card``, the GPU's name; ``card_gib``, its memory in GiB; ``driver``, the driver's version
        (all three None without a GPU); ``versions`` by package, None for a missing package.
    """
    import torch

    card = memory = None
    if torch.cuda.is_available():
        card = torch.cuda.get_device_name()
        memory = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    versions = {"Python": platform.python_version(), "CUDA": torch.version.cuda}
    return {
        "card": card,
        "card_gib": memory,
        "driver": _driver() if card else None,
        "versions": versions | {name: _version(name) for name in _PACKAGES},
    }


def _driver() -> str | None:
    if not (program := shutil.which("nvidia-smi")):
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return found.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
