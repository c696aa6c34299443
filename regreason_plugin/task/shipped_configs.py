"""`regreason fetch configs`: copies the Axolotl configs, for pip installs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import atomic_writer, together

# The folder's name in the configs, which is relative to the working directory.
FOLDER = "axolotl_configs"

# The name is replaced in the text of a file, because comments and commands contain it as well.
_NAMES_ITSELF = re.compile(rb"(?<![\w/])axolotl_configs/")
_TEXTS = {".yml", ".json", ".md"}
_PLAIN = re.compile(r"[\w./~+-]+")


def shipped() -> Path:
    """The folder of the shipped configs, in the installed package or in the checkout.

    Raises:
        UserError: Neither has the folder.
    """
    package = Path(__file__).parent.parent
    for folder in (package / FOLDER, package.parent / FOLDER):
        if (folder / "cpu" / "lora.yml").is_file():
            return folder
    raise UserError(f"this installation has no {FOLDER}; install regreason again")


def copy_configs(dest: Path) -> list[Path]:
    """Copy the configs, and make the paths in the copies point to their new folder.

    Args:
        dest: The new folder: an absolute path, or one relative to the working directory. The
            copies name it the same way.

    Returns:
        The files that were written. Files that already had the right content are not among them.

    Raises:
        UserError: A file already exists with other content, or the folder's name contains
            characters that could not be pasted into configs and commands. Nothing is written.
    """
    if not _PLAIN.fullmatch(str(dest)):
        raise UserError(
            f"--out {str(dest)!r} becomes part of the configs and their commands, so it may "
            "contain only letters, digits and ._-+/"
        )
    if dest.exists() and not dest.is_dir():
        raise UserError("is not a folder; name another --out", path=dest)
    files = dict(_files(shipped(), dest))
    changed = [path for path, content in files.items() if _differs(path, content)]
    if changed:
        others = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise UserError(
            f"already exists with other content{others}; name another --out, or remove it",
            path=changed[0],
        )
    written = [path for path in files if not path.exists()]
    with together():
        for path in written:
            with atomic_writer(path) as stream:
                stream.write(files[path])
    return written


def _files(source: Path, dest: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix in _TEXTS:
                content = _NAMES_ITSELF.sub(f"{dest.as_posix()}/".encode(), content)
            yield dest / path.relative_to(source), content


def _differs(path: Path, content: bytes) -> bool:
    return path.exists() and (not path.is_file() or path.read_bytes() != content)
