"""Scopes: train a model on one axis or on one setting instead of on all settings together.

    DATA/train/<arm>.jsonl            the joint file: the rows of all settings
    DATA/train/<scope>/<arm>.jsonl    the rows of one scope, copied from the joint file in order

A scope is an axis (``naturalness``) or a setting (``coqa_naturalness``).
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.whole_files import atomic_writer

SCOPE_KINDS = ("axis", "setting")

Settings = frozenset[tuple[str, str]]


def setting_scope(dataset: str, axis: str) -> str:
    """The scope of one setting, such as ``coqa_naturalness``."""
    return f"{dataset}_{axis}"


def settings_of(scope: str | None, declaration: Declaration) -> Settings:
    """The (dataset, axis) pairs of a scope; for None all declared pairs.

    Raises:
        UserError: The scope does not exist.
    """
    settings = declaration.settings
    if scope is None:
        return frozenset(settings)
    known = {axis: frozenset(s for s in settings if s[1] == axis) for axis in declaration.axes}
    known |= {setting_scope(*setting): frozenset([setting]) for setting in settings}
    if scope not in known:
        raise UserError(f"unknown scope {scope!r}; {nearest(scope, list(known))}")
    return known[scope]


class Place(NamedTuple):
    """The path of an arm's file in parts: data folder, split, scope (None if joint) and arm."""

    folder: Path
    split: str
    scope: str | None
    arm: str

    @property
    def name(self) -> str:
        """The file's name in the data folder."""
        return "/".join(filter(None, [self.split, self.scope, f"{self.arm}.jsonl"]))


def parse_arm_path(path: Path, splits: tuple[str, ...]) -> Place:
    """Split the path of an arm's file into its parts.

    Raises:
        ValueError: The path is neither ``DATA/<split>/<arm>.jsonl`` nor
            ``DATA/<split>/<scope>/<arm>.jsonl`` with a split of ``splits``.
    """
    if path.suffix == ".jsonl":
        if path.parent.name in splits:
            return Place(path.parents[1], path.parent.name, None, path.stem)
        if path.parent.parent.name in splits:
            return Place(path.parents[2], path.parents[1].name, path.parent.name, path.stem)
    raise ValueError(path)


def write_scopes(folder: Path, name: str, kinds: tuple[str, ...]) -> list[str]:
    """Copy the rows of a joint file to one file per scope that has rows.

    Args:
        folder: The data folder.
        name: The name of the joint file in the folder, such as ``train/shuffled.jsonl``.
        kinds: The kinds of scopes to write, a subset of `SCOPE_KINDS`.

    Returns:
        The names of the new files, sorted.
    """
    joint = folder / name
    files: dict[str, BinaryIO] = {}
    with ExitStack() as stack, joint.open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            axis, setting = row["axis"], setting_scope(row["dataset"], row["axis"])
            for kind, scope in (("axis", axis), ("setting", setting)):
                if kind not in kinds:
                    continue
                scoped = f"{joint.parent.name}/{scope}/{joint.name}"
                if scoped not in files:
                    files[scoped] = stack.enter_context(atomic_writer(folder / scoped))
                files[scoped].write(line)
    return sorted(files)
