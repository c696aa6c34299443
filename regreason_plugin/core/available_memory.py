"""How much main memory the machine can still give."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes that programs can still have; None where the system does not say."""
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
