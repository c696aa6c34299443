"""Atomic writing of files and folders, with a `UserError` if the system refuses.

A file or folder is first written as a *partial* in the same folder, named
``.NAME.TOKEN.regreason-partial``, and is renamed once it is complete. Its writer holds a lock on
the partial, which the system releases however the process ends. The next writer into the same
folder removes all partials without a lock, so it removes those of killed processes and keeps those
of running ones. On a file system without locks, the partials of killed processes stay.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from regreason_plugin.core.errors import UserError

_SUFFIX = ".regreason-partial"
_NEW, _OLD = "new", "old"  # the new and the previous folder, within a folder's partial
# Advice by the system's error number. Any other error is treated as a bug of ours.
_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the command again",
    errno.EDQUOT: "your quota is used up; free some space and run the command again",
    errno.EFBIG: "the file would exceed the size limit; raise the limit (`ulimit -f`), or name "
    "another place",
    errno.EROFS: "the file system is read-only; name another place",
    errno.EACCES: "you do not have permission; change the permissions, or name another place",
    errno.EPERM: "you do not have permission; change the permissions, or name another place",
    errno.EIO: "the disk reports an error; check it, or name another place",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTDIR: "part of the path is a file and not a folder; name another place",
    errno.EEXIST: "part of the path is a file and not a folder; name another place",
    errno.ENAMETOOLONG: "the name is too long; name another",
    errno.EBUSY: "it is in use, for example as a mount point; name a folder in it",
}


# --- what the system refuses --------------------------------------------------------------


def refusal(error: OSError, path: Path | None = None) -> UserError | None:
    """The `UserError` for an error of the system; it names the file and says what to do.

    Args:
        error: The system's error.
        path: The file or folder that was being written; None for the one that the error names.

    Returns:
        None if a user cannot do anything about the error.
    """
    advice = _ADVICE.get(error.errno or 0)
    if advice is None:
        return None
    what = "cannot be written" if path else "cannot be read or written"
    return UserError(f"{what}: {advice}", path=_final_path(path) if path else error.filename)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block, errors of the system become errors about writing ``path``.

    Raises:
        UserError: The system refused something, and the user can do something about it.
    """
    try:
        yield
    except Exception as error:
        user_error = refusal(_system_error(error), path)
        if user_error is None:
            raise
        raise user_error from error


def _system_error(error: Exception) -> OSError:
    """The system's error; for an exception of safetensors, made from the number in its message."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"I/O error: .*\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), str(error)) if number else OSError()


def check_not_input(out: Path, inputs: Iterable[Path | None], flag: str = "--out") -> None:
    """Check that a command does not write over one of its inputs, also not through a link.

    Args:
        out: The file or folder to write.
        inputs: The files and folders to read; None stands for no input.
        flag: The option that named ``out``, for the message.

    Raises:
        UserError: An input is ``out`` or lies in it.
    """
    target = out.resolve()
    for source in inputs:
        if source is None or not source.exists():
            continue
        if out.exists() and out.samefile(source):
            raise UserError(f"is both read and written; name another {flag}", path=out)
        if target in source.resolve().parents:
            raise UserError(f"holds the input {source}; name another {flag}", path=out)


def _final_path(path: Path) -> Path:
    """The path that a file within a partial will have; the partial's target for helper files."""
    parts = path.parts
    for depth, part in enumerate(parts):
        if part.endswith(_SUFFIX):
            inside = parts[depth + 2 :] if parts[depth + 1 : depth + 2] == (_NEW,) else ()
            return Path(*parts[:depth], _final_name(part), *inside)
    return path


def _final_name(partial: str) -> str:
    """The name that a partial gets once it is complete."""
    return partial[1:].removesuffix(_SUFFIX).rpartition(".")[0]


# --- one file -----------------------------------------------------------------------------


class _File(io.FileIO):
    """An open file whose errors in writing name its target."""

    def __init__(self, file: int, target: Path) -> None:
        super().__init__(file, "wb")
        self._target = target

    def write(self, data: object) -> int:
        """Write like FileIO, but raise a `UserError` if the system refuses."""
        with writing(self._target):
            return super().write(data)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Partial:
    """A file or folder that is being written, locked until `end`.

    Attributes:
        path: Path of the partial.
        target: Path that the partial gets once it is complete.
        file: Descriptor of the open file or folder that holds the lock.
        made: Folders that were created for the target, the outermost first.
    """

    path: Path
    target: Path
    file: int
    made: list[Path]

    def end(self) -> None:
        """Release the lock; if the partial was not renamed, remove it with its empty folders."""
        if self.path.exists():
            _remove(self.path)
        os.close(self.file)
        remove_folders(self.made)


_together: ContextVar[list[_Partial] | None] = ContextVar("_together", default=None)


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears whole or not at all; until then, the previous file stays.

    Raises:
        UserError: The file cannot be written, for example because the disk is full or there is
            no permission.
    """
    if path.is_dir():
        raise UserError(f"cannot be written: {_ADVICE[errno.EISDIR]}", path=path)
    partial = _make_partial(path, folder=False)
    group = _together.get()
    try:
        with io.BufferedWriter(_File(os.dup(partial.file), path), 1 << 16) as stream:
            yield cast(BinaryIO, stream)
            stream.flush()
            with writing(path):
                os.fsync(stream.fileno())
        if group is None:
            with writing(path):
                partial.path.replace(path)
    except BaseException:
        partial.end()
        raise
    if group is None:
        partial.end()
    else:
        group.append(partial)


@contextmanager
def together() -> Iterator[None]:
    """Within the block, files of `atomic_writer` appear only at its end, and all or none of them.

    Until then, `pending` returns the path at which such a file can be read.

    Raises:
        UserError: A file cannot be written (`atomic_writer`).
    """
    if _together.get() is not None:
        yield
        return
    partials: list[_Partial] = []
    before = _together.set(partials)
    try:
        yield
        for partial in partials:
            with writing(partial.target):
                partial.path.replace(partial.target)
    finally:
        _together.reset(before)
        for partial in reversed(partials):
            partial.end()


def pending(path: Path) -> Path:
    """The current path of a file that was written within a `together` block, which is still open.

    Returns:
        ``path`` itself if the file was not written within the block.
    """
    written = [partial.path for partial in _together.get() or () if partial.target == path]
    return written[-1] if written else path


def append(path: Path, content: bytes) -> None:
    """Add bytes to the end of a file, all of them or none.

    Raises:
        UserError: The file cannot be written (`atomic_writer`).
    """
    new = not path.exists()
    with writing(path), ExitStack() as undo:
        made = make_folders(path)
        undo.callback(remove_folders, made)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with os.fdopen(file, "wb", buffering=0) as stream:
            before = os.fstat(file)
            if new:
                undo.callback(path.unlink)
            elif stat.S_ISREG(before.st_mode):
                undo.callback(os.truncate, path, before.st_size)
            # One call if the system can, so that a killed process does not leave a part.
            left = memoryview(content)
            while left:
                left = left[stream.write(left) :]
        undo.pop_all()


# --- a folder -----------------------------------------------------------------------------


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces ``out`` if the block ends without an error.

    Raises:
        UserError: The folder cannot be written (`atomic_writer`).
    """
    with scratch_folder(out) as scratch:
        new, old = scratch / _NEW, scratch / _OLD
        with writing(out):
            new.mkdir()
        yield new
        with writing(out):
            if out.exists():
                out.rename(old)
            try:
                new.rename(out)
            except BaseException:
                if old.exists():
                    old.rename(out)
                raise


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Yield a temporary folder in the folder of ``beside``, which is removed at the block's end.

    Args:
        beside: The file or folder for whose writing the temporary folder is needed.

    Raises:
        UserError: The folder cannot be written (`atomic_writer`).
    """
    partial = _make_partial(beside, folder=True)
    try:
        yield partial.path
    finally:
        partial.end()


# --- inside -------------------------------------------------------------------------------


def _make_partial(target: Path, *, folder: bool) -> _Partial:
    """Create and lock the partial of a file or folder."""
    with writing(target):
        made = make_folders(target)
        try:
            _remove_leftovers(target.parent)
            while True:
                path = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_SUFFIX}")
                if folder:
                    path.mkdir()
                    flags = os.O_RDONLY | os.O_DIRECTORY
                else:
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                # Before the lock is held, another process may remove the partial as a leftover.
                with suppress(FileNotFoundError):
                    file = os.open(path, flags | os.O_CLOEXEC, 0o666)
                    if _locked(file) is not False and _is_at(file, path):
                        return _Partial(path, target, file, made)
                    os.close(file)
        except BaseException:
            remove_folders(made)
            raise


def make_folders(place: Path) -> list[Path]:
    """Create the missing parent folders of a file or folder.

    Returns:
        The folders that were created, the outermost first.
    """
    made: list[Path] = []
    try:
        for parent in reversed([place.parent, *place.parent.parents]):
            if not parent.is_dir():
                parent.mkdir(exist_ok=True)
                made.append(parent)
    except BaseException:
        remove_folders(made)
        raise
    return made


def remove_folders(made: list[Path]) -> None:
    """Remove the folders that `make_folders` created, except those that are not empty."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def _locked(file: int) -> bool | None:
    """Lock an open file.

    Returns:
        False if another process holds the lock; None if the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


def _remove_leftovers(folder: Path) -> None:
    """Remove the partials that killed processes left in a folder."""
    with os.scandir(folder) as entries:
        leftovers = [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(".") and entry.name.endswith(_SUFFIX)
        ]
    for path in leftovers:
        access = os.O_RDONLY if path.is_dir() else os.O_RDWR
        # It may belong to another user, or another process may have just removed it.
        with suppress(OSError):
            file = os.open(path, access | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _locked(file):
                    _remove(path)
            finally:
                os.close(file)


def _remove(partial: Path) -> None:
    if not partial.is_dir():
        partial.unlink(missing_ok=True)
        return
    old, target = partial / _OLD, partial.with_name(_final_name(partial.name))
    # A process was killed between the two renames of `whole_folder`: restore the previous folder.
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(partial, ignore_errors=True)
