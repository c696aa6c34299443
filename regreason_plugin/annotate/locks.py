"""Locks that tell which worker processes are alive.

Every process that opens a store locks its own file beside the store, ``<store>-worker-<name>``.
The system frees the lock however the process ends. `filelock` takes the lock, and creates the file
again if another process has removed it. It cannot list the processes that hold a lock, so the
workers' names are read from the names of the files.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import writing


class WorkerLock:
    """The lock of this process, held until `release`.

    Args:
        store: The store's file; the lock file lies beside it.

    Attributes:
        name: The worker's name, a new one at every start.
    """

    def __init__(self, store: Path) -> None:
        self.name = uuid.uuid4().hex[:12]
        self._path = _path(store, self.name)
        self._lock = FileLock(self._path)
        with writing(self._path):
            # Blocks while another process checks whether this file belongs to a killed process.
            self._lock.acquire()

    def release(self) -> None:
        """Remove the file and free the lock."""
        self._path.unlink(missing_ok=True)
        self._lock.release()


def worker_names(store: Path) -> set[str]:
    """The names of all workers that have a lock file, whether they are alive or were killed."""
    start = _path(store, "").name
    return {
        path.name.removeprefix(start)
        for path in store.parent.iterdir()
        if path.name.startswith(start)
    }


@contextmanager
def ended_worker(store: Path, worker: str) -> Iterator[bool]:
    """Yield whether a worker has ended; if so, its file is removed at the end of the block."""
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


@contextmanager
def only_batch_process(store: Path) -> Iterator[None]:
    """Within the block, no other process sends or collects batches of a store.

    Raises:
        UserError: Another process does so.
    """
    path = store.with_name(f"{store.name}-batch")
    lock = FileLock(path)
    try:
        with writing(path):
            lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            "another process sends or collects batches of this store; wait until it has ended",
            path=store,
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _path(store: Path, worker: str) -> Path:
    return store.with_name(f"{store.name}-worker-{worker}")
