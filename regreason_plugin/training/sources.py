"""Which files a config trains on: placeholders filled, every file held against its manifest."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.errors import UserError, nearest
from regreason_plugin.targets.folder import DataFolder, file_sha256, open_data_folder
from regreason_plugin.training.tokens import VERSION

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# `--sweep` appends this to output_dir, in an order that is shuffled.
_SWEEP = re.compile(r"sweep\d{4}")


@dataclass(frozen=True)
class Sources:
    """What a run trains on.

    Attributes:
        arm: The one arm of all its files.
        folder: The data folder they are from.
        rows: How many rows the train files hold.
    """

    arm: str
    folder: DataFolder
    rows: int


def fill_placeholders(cfg: Any) -> None:
    """Put values for ``{arm}`` and ``{<any top-level key>}`` in data paths and output_dir.

    An output_dir with a placeholder names its run, so the number that a sweep appends
    to it is taken off again.

    Raises:
        UserError: A placeholder without a value.
    """
    for name in ("datasets", "test_datasets"):
        for number, entry in enumerate(cfg.get(name) or []):
            if isinstance(entry.get("path"), str):
                entry["path"] = _fill(cfg, entry["path"], f"{name}[{number}].path")
    output = cfg.get("output_dir")
    if isinstance(output, str) and _PLACEHOLDER.search(output):
        if _SWEEP.fullmatch(Path(output).name):
            output = str(Path(output).parent)
        cfg["output_dir"] = _fill(cfg, output, "output_dir")


def _fill(cfg: Any, text: str, field: str) -> str:
    def value(match: re.Match[str]) -> str:
        key = "regreason_arm" if match[1] == "arm" else match[1]
        found = cfg.get(key)
        if not isinstance(found, str | int | float):
            raise UserError(
                f"{match[0]} needs the key {key}, on the top level or from --sweep",
                path=cfg.get("axolotl_config_path"),
                field=field,
            )
        return str(found)

    return _PLACEHOLDER.sub(value, text)


def find_sources(cfg: Any) -> Sources:
    """Check the data files of a config, and key them by their content.

    Each entry gets its content's hash as its ``name``. For a JSON file a name means
    nothing, but it is part of Axolotl's key of prepared data and of the folder in which
    `datasets` keeps what it read, both of which would else give old rows for new files.

    Raises:
        UserError: Files that are not there, not as they were built, or of several arms.
    """
    config = cfg.get("axolotl_config_path")
    found: dict[str, DataFolder] = {}
    arms: dict[str, str] = {}
    seen: set[Path] = set()
    rows = 0
    for name, split in (("datasets", "train"), ("test_datasets", "validation")):
        for number, entry in enumerate(cfg.get(name) or []):
            field = f"{name}[{number}].path"

            def wrong(message: str, field: str = field) -> UserError:
                return UserError(message, path=config, field=field)

            path = Path(entry.get("path") or "")
            if path.name == "test.jsonl":
                raise wrong("the test set chooses nothing: use files of train/ and validation/")
            folder = open_data_folder(path.parent.parent)
            if path.parent.name != split:
                raise wrong(f"must be a file of {split}/, not of {path.parent.name}/")
            if path.stem not in folder.manifest.arms:
                raise wrong(
                    f"unknown arm {path.stem!r}; {nearest(path.stem, folder.manifest.arms)}"
                )
            entry["name"] = _key(cfg, folder, folder.verify(f"{split}/{path.name}"))
            if path.resolve() in seen:
                raise wrong("stands here twice, so its rows would count twice")
            seen.add(path.resolve())
            found.setdefault(folder.sha256, folder)
            arms.setdefault(path.stem, field)
            if len(found) > 1:
                raise wrong("is of another data folder than the files before it")
            if len(arms) > 1:
                raise wrong(f"all files of a run are of one arm; these are {' and '.join(arms)}")
            rows += folder.manifest.counts["train"].rows if split == "train" else 0
    if not cfg.get("datasets"):
        raise UserError("names no train file", path=config, field="datasets")
    (folder,) = found.values()
    (arm,) = arms
    if cfg.get("regreason_arm") not in (None, arm):
        raise UserError(
            f"is {cfg['regreason_arm']!r}, but the files are those of {arm!r}; write {{arm}} "
            "in the paths",
            path=config,
            field="regreason_arm",
        )
    return Sources(arm, folder, rows)


def _key(cfg: Any, folder: DataFolder, sha256: str) -> str:
    parts = [str(VERSION), folder.order, sha256]
    # A base model in a folder may be made anew under the same name.
    tokenizer = Path(cfg.get("tokenizer_config") or cfg.get("base_model") or "")
    if tokenizer.is_dir():
        parts += [
            f"{file.name} {file_sha256(file)}"
            for file in sorted(tokenizer.iterdir())
            if file.suffix in (".json", ".model", ".txt", ".jinja") and file.is_file()
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
