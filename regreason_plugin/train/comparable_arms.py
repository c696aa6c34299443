"""Checks that arms differ in their text only, and not in their rows or training settings.

`regreason build` gives every arm the same rows, and the manifest's hashes guard them. A folder
that was put together by hand, with a manifest to match, passes every hash; these checks compare
its rows. A setting that trains without an error but can silently distort a comparison is a
warning, never an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import parse_object
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.train.data_files import Sources
from regreason_plugin.train.findings import Finding, finding

_FIELDS = ("id", "dataset", "axis", "label")
# The seed of a config without one: Trainer's default, which Axolotl leaves in place.
DEFAULT_SEED = 42
_REGULARISERS = (
    "lora_dropout",
    "weight_decay",
    "regreason_label_smoothing",
    "neftune_noise_alpha",
)


def check_same_rows(sources: Sources, *, all_arms: bool) -> Iterator[Finding]:
    """Compare the train files of a run with those of the other arms, row by row.

    Args:
        sources: The data that the run trains on.
        all_arms: Whether to compare with every arm; otherwise only with the manifest's first
            arm. (That suffices for the arms that are trained, because every run compares with
            the same arm, and a training reads two files instead of seven.)
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
                    "does not exist, so its rows were not compared",
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
        what = f"row {at + 1} differs from that in {other} (id, dataset, axis, label or prompt)"
    yield finding(
        "error",
        f"{what}, so the arms would not train on the same rows; build the data again with "
        "`regreason build`",
        path=folder.path / name,
    )


@lru_cache(maxsize=16)
def _rows(path: Path, sha256: str) -> tuple[bytes, ...]:
    """A digest of each row, without the fields in which arms may differ."""
    with path.open("rb") as stream:
        return tuple(_digest(parse_object(raw, path, n)) for n, raw in enumerate(stream, start=1))


def _digest(row: dict[str, Any]) -> bytes:
    common = [*(row.get(field) for field in _FIELDS), (row.get("messages") or [])[:-1]]
    return hashlib.blake2b(json.dumps(common).encode(), digest_size=16).digest()


def check_comparison(
    cfg: Any, arm: str | None, processes: int, written: Any | None = None
) -> Iterator[Finding]:
    """Warn of settings that would make arms differ in more than their text.

    Args:
        cfg: The config as Axolotl has validated it.
        arm: The arm that is trained; None if not known.
        processes: Number of processes that train.
        written: The config as the user wrote it, to see which keys were left out; None if not
            known.
    """

    def warn(field: str, message: str) -> Finding:
        return finding("warning", message, path=cfg.axolotl_config_path, field=field)

    if arm not in (None, "label_only"):
        for name in _REGULARISERS:
            if cfg.get(name):
                yield warn(
                    name,
                    f"is {cfg[name]}: this regulariser blurs the effect of the text after the "
                    "label; set it to 0 in every arm, except in controls of label_only",
                )
    if written is not None and written.get("seed") is None:
        yield warn("seed", f"is left out, so every run uses the same seed, {DEFAULT_SEED}")
    if cfg.regreason_label_share is None and cfg.regreason_loss_mean != "step":
        accumulated = cfg.gradient_accumulation_steps or 1
        apart = processes // (cfg.context_parallel_size or 1) // (cfg.tensor_parallel_size or 1)
        if accumulated * apart > 1:
            yield warn(
                "regreason_loss_mean",
                "is not step, so the loss is a mean over each micro-batch and depends on how a "
                f"step is split, here into {accumulated} accumulated x {apart} processes; set it "
                "to step in every arm",
            )
    if cfg.sample_packing and cfg.regreason_budget == "rows":
        yield warn(
            "sample_packing",
            "longer texts fill more sequences, so arms with the same rows take different numbers "
            "of steps; set regreason_budget to steps or tokens, or sample_packing to false",
        )
    if cfg.group_by_length:
        yield warn(
            "group_by_length",
            "orders the rows by length, so every arm reads them in a different order; set it to "
            "false",
        )
    if cfg.early_stopping_patience or cfg.load_best_model_at_end:
        yield warn(
            "early_stopping_patience" if cfg.early_stopping_patience else "load_best_model_at_end",
            "chooses a checkpoint by the validation loss, which in an arm with longer texts is "
            "mostly the loss of the text after the label; train every arm to its end",
        )
