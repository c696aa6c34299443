"""Which files a config trains on: placeholders filled, every file held against its manifest."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.data_folder.folder import TEST, DataFolder, open_data_folder
from regreason_plugin.data_folder.scopes import Place, Settings, place_of, settings_of
from regreason_plugin.data_folder.split import SPLITS
from regreason_plugin.train.findings import SWEEP
from regreason_plugin.train.row_tokens import VERSION

# With a slash after it, where there is one.
_PLACEHOLDER = re.compile(r"\{(\w+)\}(/?)")
_SHORT = {"arm": "regreason_arm", "scope": "regreason_scope", "variant": "regreason_variant"}
# They fall away where their key is empty: a joint model has no scope.
_OPTIONAL = ("regreason_scope", "regreason_variant")


@dataclass(frozen=True)
class Sources:
    """What a run trains on.

    Attributes:
        arm: The one arm of all its files.
        scopes: Theirs, as many as there are train files; empty for a joint model.
        folder: The data folder they are from.
        files: The train files' names in it.
        rows: How many rows they hold.
        validation: The validation files' names.
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
        """How many train rows have which label."""
        return Counter(row.label for name in self.files for row in self.folder.rows(name))


def fill_placeholders(cfg: Any, config: str) -> None:
    """Put values for ``{arm}`` and ``{<any top-level key>}`` in data paths and output_dir.

    ``{scope}/`` and ``{variant}/`` fall away where their key is empty. An output_dir with
    a placeholder names its run, so the number that a sweep appends to it is taken off again.

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
        key = _SHORT.get(match[1], match[1])
        found = cfg.get(key)
        if found is None and key in _OPTIONAL:
            return ""
        if not isinstance(found, str | int | float):
            raise UserError(
                f"{{{match[1]}}} needs the key {key}, on the top level or from --sweep",
                path=config,
                field=field,
            )
        return str(found) + match[2]

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
        UserError: Files that are not there, not as they were built, of several arms, or
            of scopes that overlap or differ between training and validation.
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
        raise UserError("names no train file", path=config, field="datasets")
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
        given: Its path.
        split: ``train`` or ``validation``.
        config: What to call the config in an error.
        field: Where in it the path stands.
        arm: The config's own.
        scope: The config's own.

    Raises:
        UserError: It is not there, not as it was built, of no arm or of no scope.
    """
    path = Path(given)
    if path.name == TEST:
        raise UserError(
            "the test set chooses nothing: name a file of train/ or validation/",
            path=config,
            field=field,
        )
    try:
        place = place_of(path, SPLITS[:2])
        found = place.split
    except ValueError:
        place, found = None, path.parent.name
    if place is None or found != split:
        raise UserError(
            f"must be a file of {split}/, not of {found or 'this folder'}/: "
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
            f"{folder.path} has no {place.name}; build it with `--scopes {kind}`, from ratings of "
            "this scope",
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
            f"has {rows} rows, but the manifest counts {expected} in every arm; build the data "
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
    if other.split == one.split and other.settings & one.settings:
        raise UserError(
            f"{other.name} has rows of {one.name} ({one.field}), which would count twice",
            path=config,
            field=other.field,
        )


def _as_the_key_says(cfg: Any, config: str, kind: str, found: str | None, field: str) -> None:
    wanted = cfg.get(f"regreason_{kind}")
    if wanted not in (None, found):
        what = f"of {kind} {found!r}" if found else f"of no {kind}"
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
            f"validates {names[1]}, but datasets trains {names[0]}; name the same scopes",
            path=config,
            field="test_datasets",
        )


def _key(cfg: Any, file: _File) -> str:
    parts = [str(VERSION), file.folder.order, file.folder.verify(file.name)]
    # A base model in a folder may be made anew under the same name.
    tokenizer = Path(cfg.get("tokenizer_config") or cfg.get("base_model") or "")
    if tokenizer.is_dir():
        parts += [
            f"{part.name} {file_sha256(part)}"
            for part in sorted(tokenizer.iterdir())
            if part.suffix in (".json", ".model", ".txt", ".jinja") and part.is_file()
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
