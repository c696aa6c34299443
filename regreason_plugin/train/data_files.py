"""The data files of a config: placeholders filled, every file checked against its manifest."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.splits import SPLITS
from regreason_plugin.data_folder.folder import TEST, DataFolder, open_data_folder
from regreason_plugin.data_folder.scopes import Place, Settings, parse_arm_path, settings_of
from regreason_plugin.train.findings import SWEEP
from regreason_plugin.train.row_tokens import VERSION

# A placeholder, with the slash after it if there is one.
_PLACEHOLDER = re.compile(r"\{(\w+)\}(/?)")
_SHORT = {"arm": "regreason_arm", "scope": "regreason_scope", "variant": "regreason_variant"}
# The placeholders of these keys are removed if the key is empty: a joint model has no scope.
_OPTIONAL = ("regreason_scope", "regreason_variant")


@dataclass(frozen=True)
class Sources:
    """The data that a run trains on.

    Attributes:
        arm: The arm of all files.
        scopes: Scopes of the train files, one for each file; empty for a joint model.
        folder: The data folder that holds the files.
        files: Names of the train files in the data folder.
        rows: Number of rows in the train files.
        validation: Names of the validation files in the data folder.
    """

    arm: str
    scopes: tuple[str, ...]
    folder: DataFolder
    files: tuple[str, ...]
    rows: int
    validation: tuple[str, ...] = ()

    @property
    def scope(self) -> str | None:
        """The scopes as one word, such as ``naturalness``; None for a joint model."""
        return "+".join(self.scopes) or None

    def labels(self) -> Counter[int]:
        """Number of train rows with each label."""
        return Counter(row.label for name in self.files for row in self.folder.rows(name))


def fill_placeholders(cfg: Any, config: str) -> None:
    """Replace ``{arm}`` and ``{<any top-level key>}`` in data paths and output_dir by their values.

    ``{scope}/`` and ``{variant}/`` are removed if their key is empty. An output_dir with a
    placeholder already names its run, so the number that a sweep appends to it is removed, too.

    Args:
        cfg: The config; changed in place.
        config: Name of the config in an error.

    Raises:
        UserError: A placeholder has no value.
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
        key = _SHORT.get(match[1], match[1])
        content = cfg.get(key)
        if content is None and key in _OPTIONAL:
            return ""
        if not isinstance(content, str | int | float):
            raise UserError(
                f"{{{match[1]}}} has no value; set the key {key} on the top level or in the sweep",
                path=config,
                field=field,
            )
        return str(content) + match[2]

    return _PLACEHOLDER.sub(value, text)


def find_sources(cfg: Any, config: str) -> Sources:
    """Check the data files of a config, and key each entry by the content of its file.

    Each entry gets the hash of its file's content as its ``name``. A JSON file has no use for a
    name, but Axolotl's key for prepared data and the cache folder of `datasets` both contain it.
    Without the hash, both would return old rows for a changed file.

    Args:
        cfg: The config; changed in place.
        config: Name of the config in an error.

    Raises:
        UserError: A file does not exist or was changed after the build, the files are of several
            arms, or scopes overlap or differ between training and validation.
    """
    files: list[_File] = []
    for name, split in (("datasets", "train"), ("test_datasets", "validation")):
        for number, entry in enumerate(cfg.get(name) or []):
            field = f"{name}[{number}].path"
            named = cfg.get("regreason_arm"), cfg.get("regreason_scope")
            file = open_file(entry.get("path") or "", split, config, field, *named)
            for earlier in files:
                _agree(earlier, file, config)
            entry["name"] = _key(cfg, file)
            files.append(file)
    train = [file for file in files if file.split == "train"]
    if not train:
        raise UserError("lists no train file", path=config, field="datasets")
    for file in train:
        _as_the_key_says(cfg, config, "arm", file.arm, file.field)
        _as_the_key_says(cfg, config, "scope", file.scope, file.field)
    _validate_what_is_trained(files, config)
    return Sources(
        train[0].arm,
        tuple(file.scope for file in train if file.scope is not None),
        train[0].folder,
        tuple(file.name for file in train),
        sum(file.rows for file in train),
        tuple(file.name for file in files if file.split == "validation"),
    )


@dataclass(frozen=True)
class _File:
    field: str
    folder: DataFolder
    place: Place
    rows: int

    @property
    def split(self) -> str:
        return self.place.split

    @property
    def arm(self) -> str:
        return self.place.arm

    @property
    def scope(self) -> str | None:
        return self.place.scope

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def settings(self) -> Settings:
        return settings_of(self.scope, self.folder.declaration)


def open_file(
    given: str,
    split: str,
    config: str,
    field: str,
    arm: str | None = None,
    scope: str | None = None,
) -> _File:
    """Check one file of a config.

    Args:
        given: Path of the file.
        split: ``train`` or ``validation``.
        config: Name of the config in an error.
        field: The config's field that holds the path.
        arm: The config's ``regreason_arm``; None if not set.
        scope: The config's ``regreason_scope``; None if not set.

    Raises:
        UserError: The file does not exist, was changed after the build, or has an unknown arm or
            scope.
    """
    path = Path(given)
    if path.name == TEST:
        raise UserError(
            "the test set must not take part in a training; name a file of train/ or validation/",
            path=config,
            field=field,
        )
    try:
        place = parse_arm_path(path, SPLITS[:2])
        folder_name = place.split
    except ValueError:
        place, folder_name = None, path.parent.name
    if place is None or folder_name != split:
        raise UserError(
            f"must be a file of {split}/, not of {folder_name or 'this folder'}/: "
            f"DATA/{split}/<arm>.jsonl or DATA/{split}/<scope>/<arm>.jsonl",
            path=config,
            field=field,
        )
    folder = open_data_folder(place.folder)
    try:
        settings = settings_of(place.scope, folder.declaration)
    except UserError as error:
        key = "regreason_scope" if place.scope == scope else field
        raise UserError(str(error), path=config, field=key) from None
    if place.arm not in folder.manifest.arms:
        raise UserError(
            f"unknown arm {place.arm!r}; {nearest(place.arm, folder.manifest.arms)}",
            path=config,
            field="regreason_arm" if place.arm == arm else field,
        )
    if place.scope is not None and place.name not in folder.manifest.files:
        kind = "axis" if place.scope in folder.declaration.axes else "setting"
        raise UserError(
            f"{folder.path} has no {place.name}; build the data with `--scopes {kind}`, from "
            "ratings that include this scope",
            path=config,
            field=field,
        )
    folder.verify(place.name)
    rows = _count_lines(path)
    labels = folder.manifest.counts[split].labels
    name = folder.declaration.task_name
    expected = sum(sum(labels.get(name(*setting), {}).values()) for setting in settings)
    if rows != expected:
        raise UserError(
            f"has {rows} rows, but the manifest counts {expected} for every arm; build the data "
            "again with `regreason build`",
            path=path,
        )
    return _File(field, folder, place, rows)


def _count_lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def _agree(one: _File, other: _File, config: str) -> None:
    if other.folder.sha256 != one.folder.sha256:
        raise UserError(
            f"is in another data folder than {one.field}", path=config, field=other.field
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
            f"is the same file as {one.field}, so its rows would count twice",
            path=config,
            field=other.field,
        )
    if other.split == one.split and other.settings & one.settings:
        raise UserError(
            f"{other.name} shares rows with {one.name} ({one.field}), which would count twice",
            path=config,
            field=other.field,
        )


def _as_the_key_says(cfg: Any, config: str, kind: str, of_file: str | None, field: str) -> None:
    wanted = cfg.get(f"regreason_{kind}")
    if wanted not in (None, of_file):
        what = f"of {kind} {of_file!r}" if of_file else f"of no {kind}"
        raise UserError(
            f"is {wanted!r}, but {field} is {what}; write {{{kind}}} in the paths",
            path=config,
            field=f"regreason_{kind}",
        )


def _validate_what_is_trained(files: list[_File], config: str) -> None:
    trained, validated = (
        frozenset[tuple[str, str]]().union(*(f.settings for f in files if f.split == split))
        for split in ("train", "validation")
    )
    if validated and validated != trained:
        names = [
            " and ".join(sorted(f.scope or "all settings" for f in files if f.split == split))
            for split in ("train", "validation")
        ]
        raise UserError(
            f"validates on {names[1]}, but datasets trains on {names[0]}; list the same scopes in "
            "both",
            path=config,
            field="test_datasets",
        )


def _key(cfg: Any, file: _File) -> str:
    parts = [str(VERSION), file.folder.order, file.folder.verify(file.name)]
    if cfg.get("shuffle_merged_datasets") is False:
        # Axolotl's key for prepared data does not contain the order of the rows.
        parts.append("in the order of the file")
    # The files of a local base model may change while its path stays the same.
    tokenizer = Path(cfg.get("tokenizer_config") or cfg.get("base_model") or "")
    if tokenizer.is_dir():
        parts += [
            f"{part.name} {file_sha256(part)}"
            for part in sorted(tokenizer.iterdir())
            if part.suffix in (".json", ".model", ".txt", ".jinja") and part.is_file()
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
