"""Files and folders that appear whole or not at all; one sentence where one cannot be written.

What is written stands beside its place until it is whole, as ``.NAME.TOKEN.regreason-partial``, and
is renamed then. Its writer holds a lock on it, which the system frees however the process ends. So
whoever writes into the same folder next removes what a killed process left there, and never what a
living one still writes. (A file system without locks keeps leftovers.)
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
_NEW, _OLD = "new", "old"  # in a folder's partial: what comes, and what was there before
# What a user can do about it. Any other error of the system is a bug of ours.
_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the command again",
    errno.EDQUOT: "your quota is used up; free some space and run the command again",
    errno.EFBIG: "files may not be that large here; raise the limit (`ulimit -f`), or name "
    "another place",
    errno.EROFS: "the file system is read-only; name another place",
    errno.EACCES: "there is no permission; change it, or name another place",
    errno.EPERM: "there is no permission; change it, or name another place",
    errno.EIO: "the disk reports an error; check it, or name another place",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTDIR: "a file stands where a folder has to be; name another place",
    errno.EEXIST: "a file stands where a folder has to be; name another place",
    errno.ENAMETOOLONG: "the name is too long; name another",
    errno.EBUSY: "it is in use, as a mounted disk is; name a place in it",
}


# --- what the system refuses --------------------------------------------------------------


def refusal(error: OSError, path: Path | None = None) -> UserError | None:
    """What the system refused, as one sentence with the file and what to do.

    Args:
        error: What it raised.
        path: What was written; None for what the error itself names.

    Returns:
        None for an error that no user can do anything about.
    """
    advice = _ADVICE.get(error.errno or 0)
    if advice is None:
        return None
    what = "cannot be written" if path else "cannot be read or written"
    return UserError(f"{what}: {advice}", path=_shown(path) if path else error.filename)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it the system's errors are about this file or folder, which is written.

    Raises:
        UserError: In place of such an error.
    """
    try:
        yield
    except Exception as error:
        said = refusal(_of_system(error), path)
        if said is None:
            raise
        raise said from error


def _of_system(error: Exception) -> OSError:
    """The system's error; safetensors raises one of its own, which names the system's number."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"I/O error: .*\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), str(error)) if number else OSError()


def check_not_input(out: Path, inputs: Iterable[Path | None], flag: str = "--out") -> None:
    """Refuse to write over what is read, also where a link leads to it.

    Args:
        out: The file or folder that is to be written.
        inputs: What is read; None for nothing.
        flag: The option that named ``out``.

    Raises:
        UserError: One of them is ``out``, or lies in it.
    """
    place = out.resolve()
    for one in inputs:
        if one is None or not one.exists():
            continue
        if out.exists() and out.samefile(one):
            raise UserError(f"is both read and written; name another {flag}", path=out)
        if place in one.resolve().parents:
            raise UserError(f"holds {one}, which is read; name another {flag}", path=out)


def _shown(path: Path) -> Path:
    """Where a file will be once its folder is whole, or what it is needed for until then."""
    parts = path.parts
    for place, part in enumerate(parts):
        if part.endswith(_SUFFIX):
            inside = parts[place + 2 :] if parts[place + 1 : place + 2] == (_NEW,) else ()
            return Path(*parts[:place], _name(part), *inside)
    return path


def _name(partial: str) -> str:
    """The name of what a partial becomes."""
    return partial[1:].removesuffix(_SUFFIX).rpartition(".")[0]


# --- one file -----------------------------------------------------------------------------


class _File(io.FileIO):
    """An open file that names its place when it cannot be written."""

    def __init__(self, file: int, place: Path) -> None:
        super().__init__(file, "wb")
        self._place = place

    def write(self, data: object) -> int:
        """As of FileIO, with a `UserError` for what the system refuses."""
        with writing(self._place):
            return super().write(data)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Partial:
    """What becomes a file or folder, locked until `end`.

    Attributes:
        path: Where it stands.
        place: What it becomes.
        file: The open file, or folder, that holds the lock.
        made: The folders that were made for it, the outermost first.
    """

    path: Path
    place: Path
    file: int
    made: list[Path]

    def end(self) -> None:
        """Remove it, where it has not become what it should, and the folders made for it."""
        if self.path.exists():
            _remove(self.path)
        os.close(self.file)
        remove_folders(self.made)


_together: ContextVar[list[_Partial] | None] = ContextVar("_together", default=None)


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears whole or not at all; what was there before stays until then.

    Raises:
        UserError: The disk is full, there is no permission, or the like.
    """
    if path.is_dir():
        raise UserError(f"cannot be written: {_ADVICE[errno.EISDIR]}", path=path)
    partial = _begin(path, folder=False)
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
    """Within it, files of `atomic_writer` appear at its end, all or none; `pending` finds them.

    Raises:
        UserError: As `atomic_writer`.
    """
    if _together.get() is not None:
        yield
        return
    partials: list[_Partial] = []
    before = _together.set(partials)
    try:
        yield
        for one in partials:
            with writing(one.place):
                one.path.replace(one.place)
    finally:
        _together.reset(before)
        for one in reversed(partials):
            one.end()


def pending(path: Path) -> Path:
    """Where a file stands that was written within `together`, until that ends."""
    written = [one.path for one in _together.get() or () if one.place == path]
    return written[-1] if written else path


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file, all of it or nothing.

    Raises:
        UserError: As `atomic_writer`.
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
            # At once where the system can, so that a killed process leaves no part of it.
            left = memoryview(content)
            while left:
                left = left[stream.write(left) :]
        undo.pop_all()


# --- a folder -----------------------------------------------------------------------------


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of ``out`` when the block ends well.

    Raises:
        UserError: As `atomic_writer`.
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
    """A folder beside a file or folder, for what is needed until that is written.

    Raises:
        UserError: As `atomic_writer`.
    """
    partial = _begin(beside, folder=True)
    try:
        yield partial.path
    finally:
        partial.end()


# --- inside -------------------------------------------------------------------------------


def _begin(place: Path, *, folder: bool) -> _Partial:
    """Make and lock what a file or folder is written to."""
    with writing(place):
        made = make_folders(place)
        try:
            _remove_leftovers(place.parent)
            while True:
                path = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}{_SUFFIX}")
                if folder:
                    path.mkdir()
                    flags = os.O_RDONLY | os.O_DIRECTORY
                else:
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                with suppress(FileNotFoundError):  # taken for a leftover before it was locked
                    file = os.open(path, flags | os.O_CLOEXEC, 0o666)
                    if _locked(file) is not False and _is_at(file, path):
                        return _Partial(path, place, file, made)
                    os.close(file)
        except BaseException:
            remove_folders(made)
            raise


def make_folders(place: Path) -> list[Path]:
    """Make the folders that a file or folder is in; those that were made, the outermost first."""
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
    """Remove what `make_folders` made, but for what something stands in by now."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def _locked(file: int) -> bool | None:
    """Lock an open file; False where another process holds it, None where there are no locks."""
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
    """Remove what killed processes left in a folder."""
    with os.scandir(folder) as entries:
        leftovers = [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(".") and entry.name.endswith(_SUFFIX)
        ]
    for path in leftovers:
        access = os.O_RDONLY if path.is_dir() else os.O_RDWR
        # (Somebody else's, or another process has just removed it.)
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
    old, place = partial / _OLD, partial.with_name(_name(partial.name))
    # Killed between the two renames that swap a folder.
    if old.exists() and not place.exists():
        old.rename(place)
    shutil.rmtree(partial, ignore_errors=True)
