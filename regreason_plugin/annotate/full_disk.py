"""A store on a full disk: no call is made whose answer could not be saved."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from regreason_plugin.core.errors import UserError

# SQLite's error codes for writes that the system refuses.
_REFUSALS = (
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
)
# Bytes; many times the answers of all calls under way.
_ROOM = 16 << 20
_ADVICE = (
    "free some space or check the file's permissions, then run the same command again; answers "
    "that are in the store are not asked for again"
)


def check_room(store: Path) -> None:
    """Refuse to make calls, which may cost money, if the disk may have no room for their answers.

    Raises:
        UserError: Less than 16 MiB is free.
    """
    free = shutil.disk_usage(store.parent).free
    if free < _ROOM:
        raise UserError(
            f"only {free / 2**20:.1f} MiB are free on the disk, too little for the answers to "
            f"come; {_ADVICE}",
            path=store,
        )


def store_refusal(error: BaseException | None, store: Path) -> UserError | None:
    """The user's error message for a write that the system refused; None for any other error."""
    if not isinstance(error, sqlite3.OperationalError):
        return None
    # The low byte is the code's kind. (An error of the Python module itself has no code.)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _REFUSALS:
        return None
    return UserError(f"the store cannot be written ({error}); {_ADVICE}", path=store)
