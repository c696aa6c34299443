"""A lock on output_dir that allows one training at a time; the system frees it when a run ends."""

from __future__ import annotations

import atexit
import fcntl
import os
from pathlib import Path
from typing import IO

from regreason_plugin.core.errors import UserError
from regreason_plugin.train.findings import finding, say

LOCK = ".regreason.lock"


class OutputLock:
    """This process's lock on an output_dir, held until it is released or the process ends.

    The folder is created if it does not exist. A process that is killed leaves the file behind,
    but not the lock.

    Args:
        output_dir: The folder to lock.
        config: Name of the config in an error.

    Raises:
        UserError: Another process holds the lock, or the folder cannot be written to.
    """

    def __init__(self, output_dir: Path, config: str) -> None:
        self._path = (output_dir / LOCK).absolute()
        self._made = [folder for folder in self._path.parents if not folder.exists()]
        self._process = os.getpid()
        self._stream: IO[str] | None = None
        while self._stream is None:
            try:
                output_dir.mkdir(parents=True, exist_ok=True)
                stream = self._path.open("a")
            except OSError as error:
                raise UserError(
                    f"{output_dir} cannot be written to ({error.strerror}); name another folder",
                    path=config,
                    field="output_dir",
                ) from None
            try:
                # Not flock: processes that are forked from this one would hold it as well.
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                stream.close()
                raise UserError(
                    f"another run of Axolotl is using {output_dir}; wait until it ends, or name "
                    "another folder",
                    path=config,
                    field="output_dir",
                ) from None
            except OSError as error:
                unknown = f"whether another run uses {output_dir}: it has no locks ({error})"
                say([finding("not checked", unknown)])
            if self._is_at(stream):
                self._stream = stream
            else:  # the process that held the lock has deleted the file meanwhile
                stream.close()
        atexit.register(self.release)

    def release(self) -> None:
        """Free the lock, and delete its file and the folders created for it that are empty."""
        atexit.unregister(self.release)
        # A forked process does not hold the lock.
        if self._stream is None or os.getpid() != self._process:
            return
        self._path.unlink(missing_ok=True)
        self._stream.close()
        self._stream = None
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:  # not empty, so somebody uses it
                return

    def _is_at(self, stream: IO[str]) -> bool:
        """Whether the lock's path still leads to the opened file."""
        try:
            return self._path.stat().st_ino == os.fstat(stream.fileno()).st_ino
        except FileNotFoundError:
            return False
