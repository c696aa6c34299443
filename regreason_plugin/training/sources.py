"""Which files a config trains on: placeholders filled, every file held against its manifest."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.errors import UserError, nearest
from regreason_plugin.targets.folder import TEST, DataFolder, file_sha256, open_data_folder
from regreason_plugin.training.sweep import SWEEP
from regreason_plugin.training.tokens import VERSION

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Sources:
    """What a run trains on.

    Attributes:
        arm: The one arm of all its files.
        folder: The data folder they are from.
        files: The train files' names in it.
        rows: How many rows they hold.
    """

    arm: str
    folder: DataFolder
    files: tuple[str, ...]
    rows: int

    def labels(self) -> Counter[int]:
        """How many train rows have which label."""
        return Counter(row.label for name in self.files for row in self.folder.rows(name))


def fill_placeholders(cfg: Any, config: str) -> None:
    """Put values for ``{arm}`` and ``{<any top-level key>}`` in data paths and output_dir.

    An output_dir with a placeholder names its run, so the number that a sweep appends
    to it is taken off again.

    Args:
        cfg: The config, which is changed.
        config: What to call it in an error.

    Raises:
        UserError: A placeholder without a value.
    """
    for name in ("datasets", "test_datasets"):
        for number, entry in enumerate(cfg.get(name) or []):
            if isinstance(entry.get("path"), str):
                entry["path"] = _fill(cfg, entry["path"], config, f"{name}[{number}].path")
    output = cfg.get("output_dir")
    if isinstance(output, str) and _PLACEHOLDER.search(output):
        if SWEEP.fullmatch(Path(output).name):
            output = str(Path(output).parent)
        cfg["output_dir"] = _fill(cfg, output, config, "output_dir")


def _fill(cfg: Any, text: str, config: str, field: str) -> str:
    def value(match: re.Match[str]) -> str:
        key = "regreason_arm" if match[1] == "arm" else match[1]
        found = cfg.get(key)
        if not isinstance(found, str | int | float):
            raise UserError(
                f"{match[0]} needs the key {key}, on the top level or from --sweep",
                path=config,
                field=field,
            )
        return str(found)

    return _PLACEHOLDER.sub(value, text)


def find_sources(cfg: Any, config: str) -> Sources:
    """Check the data files of a config, and key them by their content.

    Each entry gets its content's hash as its ``name``. For a JSON file a name means
    nothing, but it is part of Axolotl's key of prepared data and of the folder in which
    `datasets` keeps what it read, both of which would else give old rows for new files.

    Args:
        cfg: The config, which is changed.
        config: What to call it in an error.

    Raises:
        UserError: Files that are not there, not as they were built, or of several arms.
    """
    files: list[_File] = []
    for name, split in (("datasets", "train"), ("test_datasets", "validation")):
        for number, entry in enumerate(cfg.get(name) or []):
            field = f"{name}[{number}].path"
            arm = cfg.get("regreason_arm")
            file = open_file(entry.get("path") or "", split, config, field, arm)
            for earlier in files:
                _agree(earlier, file, config)
            entry["name"] = _key(cfg, file)
            files.append(file)
    train = [file for file in files if file.split == "train"]
    if not train:
        raise UserError("names no train file", path=config, field="datasets")
    arm, folder = train[0].arm, train[0].folder
    if cfg.get("regreason_arm") not in (None, arm):
        raise UserError(
            f"is {cfg['regreason_arm']!r}, but {train[0].field} is of arm {arm!r}; write {{arm}} "
            "in the paths",
            path=config,
            field="regreason_arm",
        )
    return Sources(
        arm, folder, tuple(file.name for file in train), sum(file.rows for file in train)
    )


@dataclass(frozen=True)
class _File:
    field: str
    folder: DataFolder
    split: str
    arm: str
    sha256: str
    rows: int

    @property
    def name(self) -> str:
        return f"{self.split}/{self.arm}.jsonl"


def open_file(given: str, split: str, config: str, field: str, arm: str | None) -> _File:
    """Check one file of a config.

    Args:
        given: Its path.
        split: ``train`` or ``validation``.
        config: What to call the config in an error.
        field: Where in it the path stands.
        arm: The config's own.

    Raises:
        UserError: It is not there, not as it was built, or of no arm.
    """
    path = Path(given)
    if path.name == TEST:
        raise UserError(
            "the test set chooses nothing: name a file of train/ or validation/",
            path=config,
            field=field,
        )
    if path.parent.name != split or path.suffix != ".jsonl":
        raise UserError(
            f"must be a file of {split}/, not of {path.parent.name or 'this folder'}/: "
            f"DATA/{split}/<arm>.jsonl",
            path=config,
            field=field,
        )
    folder = open_data_folder(path.parent.parent)
    if path.stem not in folder.manifest.arms:
        raise UserError(
            f"unknown arm {path.stem!r}; {nearest(path.stem, folder.manifest.arms)}",
            path=config,
            field="regreason_arm" if path.stem == arm else field,
        )
    sha256 = folder.verify(f"{split}/{path.name}")
    rows = _count_lines(path)
    expected = folder.manifest.counts[split].rows
    if rows != expected:
        raise UserError(
            f"has {rows} rows, but the manifest counts {expected} in every arm; build the data "
            "again with `regreason build`",
            path=path,
        )
    return _File(field, folder, split, path.stem, sha256, rows)


def _count_lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def _agree(one: _File, other: _File, config: str) -> None:
    if other.folder.sha256 != one.folder.sha256:
        raise UserError(
            f"is of another data folder than {one.field}", path=config, field=other.field
        )
    if other.arm != one.arm:
        raise UserError(
            f"is of arm {other.arm!r}, but {one.field} is of arm {one.arm!r}; a run trains and "
            "validates one arm",
            path=config,
            field=other.field,
        )
    if other.name == one.name:
        raise UserError(
            f"stands here twice (also {one.field}), so its rows would count twice",
            path=config,
            field=other.field,
        )


def _key(cfg: Any, file: _File) -> str:
    parts = [str(VERSION), file.folder.order, file.sha256]
    # A base model in a folder may be made anew under the same name.
    tokenizer = Path(cfg.get("tokenizer_config") or cfg.get("base_model") or "")
    if tokenizer.is_dir():
        parts += [
            f"{part.name} {file_sha256(part)}"
            for part in sorted(tokenizer.iterdir())
            if part.suffix in (".json", ".model", ".txt", ".jinja") and part.is_file()
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
