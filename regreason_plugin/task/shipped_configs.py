"""`regreason fetch configs`: the Axolotl configs for who has no checkout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import atomic_writer, together

# How the configs name their own folder, relative to where the user stands.
FOLDER = "axolotl_configs"

# (The folder's name stands in comments and commands too, which no reader of YAML knows: so it is
# replaced in the text.)
_NAMES_ITSELF = re.compile(rb"(?<![\w/])axolotl_configs/")
_TEXTS = {".yml", ".json", ".md"}
_PLAIN = re.compile(r"[\w./~+-]+")


def shipped() -> Path:
    """The folder of the configs: in the wheel, or in the checkout.

    Raises:
        UserError: It is in neither.
    """
    package = Path(__file__).parent.parent
    for folder in (package / FOLDER, package.parent / FOLDER):
        if (folder / "cpu" / "lora.yml").is_file():
            return folder
    raise UserError(f"this installation holds no {FOLDER}; install regreason again")


def copy_configs(dest: Path) -> list[Path]:
    """Copy the configs; what they say of their own folder then names the copy.

    Args:
        dest: The folder, as its configs shall name it: relative to where the user
            stands, or absolute.

    Returns:
        The files that were written; those that were there as they should be are not.

    Raises:
        UserError: A file is there with another content, or the folder's name would not
            be read back from a config. Nothing is written.
    """
    if not _PLAIN.fullmatch(str(dest)):
        raise UserError(
            f"--out {str(dest)!r} stands in the configs and their commands, so it may hold "
            "letters, digits and ._-+/ only"
        )
    if dest.exists() and not dest.is_dir():
        raise UserError("is no folder; name another --out", path=dest)
    files = dict(_files(shipped(), dest))
    changed = [path for path, content in files.items() if _differs(path, content)]
    if changed:
        others = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise UserError(
            f"is there with another content{others}; name another --out, or remove it",
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
