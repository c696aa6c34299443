"""The main memory that is still available on this machine."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Available memory and free swap in bytes; None if the system does not report them."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = {
        name: int(value.split()[0]) for name, _, value in (x.partition(":") for x in lines)
    }
    if "MemAvailable" not in kibibytes:
        return None
    return 1024 * (kibibytes["MemAvailable"] + kibibytes.get("SwapFree", 0))
