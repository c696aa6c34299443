"""Which processes live: each holds a lock that the system frees, however the process ends.

The lock is on a file of its own beside the store, ``<store>-worker-<name>``. `filelock` takes it
and makes the file anew where another process has taken it away; it cannot list who lives, so the
names come from the files.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

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
        self._lock = FileLock(self._path)
        with writing(self._path):
            # It waits while another process looks whether the file is one of a killed process.
            self._lock.acquire()

    def release(self) -> None:
        """Take the file away and free the lock."""
        self._path.unlink(missing_ok=True)
        self._lock.release()


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
    path = _path(store, worker)
    lock = FileLock(path)
    try:
        with writing(path):
            lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
        path.unlink(missing_ok=True)
    finally:
        lock.release()


def _path(store: Path, worker: str) -> Path:
    return store.with_name(f"{store.name}-worker-{worker}")
