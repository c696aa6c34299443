"""Whether the arms of a data folder have the same rows, for they may differ in nothing else.

`regreason build` makes them so, and the manifest's hashes keep them so. What is left is a
folder put together by hand with a manifest to match, which no hash can tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from regreason_plugin.build.folder import DataFolder
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import parse_object
from regreason_plugin.train.data_files import Sources
from regreason_plugin.train.findings import Finding, finding

_FIELDS = ("id", "dataset", "axis", "label")


def check_same_rows(sources: Sources, *, all_arms: bool) -> Iterator[Finding]:
    """Hold the train files of a run against those of the other arms, row by row.

    Args:
        sources: What the run trains on.
        all_arms: All of them; else only the manifest's first arm. (Since every run is held
            against the same one, that is enough for the arms that are trained, and it costs a
            training two files instead of seven.)
    """
    folder = sources.folder
    arms = folder.manifest.arms if all_arms else folder.manifest.arms[:1]
    for name in sources.files:
        for arm in arms:
            other = str(Path(name).with_name(f"{arm}.jsonl"))
            if other == name or other not in folder.manifest.files:
                continue
            if not (folder.path / other).is_file():
                yield finding(
                    "not checked",
                    "is not here, so it is not known whether its rows are the same",
                    path=folder.path / other,
                )
                continue
            yield from _compare(folder, other, name)


def _compare(folder: DataFolder, name: str, other: str) -> Iterator[Finding]:
    try:
        ours, theirs = (_rows(folder.path / file, folder.verify(file)) for file in (name, other))
    except UserError as error:
        yield Finding("error", str(error))
        return
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        what = f"has {len(ours)} rows, but {other} has {len(theirs)}"
    else:
        at = next(n for n, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        what = f"row {at + 1} is another than in {other} (id, dataset, axis, label or prompt)"
    yield finding(
        "error",
        f"{what}, so the arms are not trained on the same rows; build the data again with "
        "`regreason build`",
        path=folder.path / name,
    )


@lru_cache(maxsize=16)
def _rows(path: Path, sha256: str) -> tuple[bytes, ...]:
    """A digest of each row without what an arm may change."""
    with path.open("rb") as stream:
        return tuple(_digest(parse_object(raw, path, n)) for n, raw in enumerate(stream, start=1))


def _digest(row: dict[str, Any]) -> bytes:
    kept = [*(row.get(field) for field in _FIELDS), (row.get("messages") or [])[:-1]]
    return hashlib.blake2b(json.dumps(kept).encode(), digest_size=16).digest()
