"""A store on a full disk: no call whose answer finds no room, and a sentence for the user."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from regreason_plugin.core.errors import UserError

# What SQLite says where the system lets it write nothing. (It has no error codes on Python 3.10.)
_REFUSALS = ("disk is full", "disk I/O error", "readonly database", "unable to open database file")
# Bytes: the answers of the calls that are on their way, many times over.
_ROOM = 16 << 20
_ADVICE = (
    "free some space, or see that it may be written there, and run the same command again: "
    "what is in the store is not asked again"
)


def check_room(store: Path) -> None:
    """Refuse to make calls whose answers, which may cost money, might find no room on the disk.

    Raises:
        UserError: So it is.
    """
    free = shutil.disk_usage(store.parent).free
    if free < _ROOM:
        raise UserError(
            f"there are {free / 2**20:.1f} MiB left on the disk, too little for the answers to "
            f"come; {_ADVICE}",
            path=store,
        )


def store_refusal(error: BaseException | None, store: Path) -> UserError | None:
    """What the system did not let SQLite write, as one sentence; None for any other error."""
    if not isinstance(error, sqlite3.OperationalError):
        return None
    if not any(said in str(error) for said in _REFUSALS):
        return None
    return UserError(f"cannot be written ({error}); {_ADVICE}", path=store)
