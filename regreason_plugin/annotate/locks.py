"""Which processes live: each holds a lock that the system frees, however the process ends.

The lock is on a file of its own beside the store, ``<store>-worker-<name>``.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from regreason_plugin.core.whole_files import writing


class WorkerLock:
    """This process's, held until it is released.

    Args:
        store: The file that it stands beside.

    Attributes:
        name: The process's, new at every start.
    """

    def __init__(self, store: Path) -> None:
        self.name = uuid.uuid4().hex[:12]
        self._path = _path(store, self.name)
        while True:
            try:
                self._stream = _hold(self._path)
            except BlockingIOError:
                continue  # another process looks whether it is one of a killed process ...
            if _is_at(self._stream, self._path):
                return
            self._stream.close()  # ... and took it away between its making and its locking

    def release(self) -> None:
        """Take the file away and free the lock."""
        self._path.unlink(missing_ok=True)
        self._stream.close()


def worker_names(store: Path) -> set[str]:
    """The names of all files there, of processes that live or have been killed."""
    start = _path(store, "").name
    return {
        path.name.removeprefix(start)
        for path in store.parent.iterdir()
        if path.name.startswith(start)
    }


@contextmanager
def if_ended(store: Path, worker: str) -> Iterator[bool]:
    """Whether a process has ended; then its file goes away at the end of the block."""
    try:
        stream = _hold(_path(store, worker))
    except BlockingIOError:
        yield False
        return
    with stream:
        yield True
        _path(store, worker).unlink(missing_ok=True)


def _path(store: Path, worker: str) -> Path:
    return store.with_name(f"{store.name}-worker-{worker}")


def _hold(path: Path) -> IO[str]:
    """Make and lock the file.

    Raises:
        BlockingIOError: Another process holds it.
    """
    with writing(path):
        stream = path.open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        stream.close()
        raise
    return stream


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return path.stat().st_ino == os.fstat(stream.fileno()).st_ino
    except FileNotFoundError:
        return False
