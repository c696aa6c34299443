"""SmolLM2-135M-Instruct as an ordinary folder of transformers, with a card that says where from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import AutoModelForCausalLM, GenerationConfig

from regreason_plugin.base.source import (
    GGUF_SHA256,
    PACKAGE,
    PACKAGE_VERSION,
    REPOSITORY,
    REVISION,
    Source,
    find_source,
)
from regreason_plugin.base.tokenizer import read_tokenizer
from regreason_plugin.core.available_memory import available_memory
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.markdown import render
from regreason_plugin.core.whole_files import atomic_writer, whole_folder, writing

Dtype = Literal["float32", "bfloat16"]
CARD, ORIGIN = "README.md", "origin.json"

_WEIGHTS = 134_515_008
_BYTES = {"float32": 4, "bfloat16": 2}
_OTHER_FILES = 8_000_000
# Bytes: a tenth more than `/usr/bin/time -v regreason base smollm2` showed with the package's file.
_MEMORY = {"float32": 1_650_000_000, "bfloat16": 1_350_000_000}


class Origin(BaseModel):
    """``origin.json``: where a folder's model comes from, and what was written.

    Attributes:
        model: Its name on the Hub.
        source: The way it came.
        revision: The Hub's commit, if it came from there.
        gguf_sha256: Of the package's file, if it came from there.
        dtype: Of the weights.
        files: sha256 by name, of all but the card and this file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = REPOSITORY
    source: Literal["hub", "package"]
    revision: str | None = None
    gguf_sha256: str | None = None
    dtype: Dtype
    files: dict[str, str]

    @property
    def words(self) -> str:
        """Where the model comes from, for a reader."""
        if self.source == "hub":
            return f"{self.model} on the Hub, revision {self.revision}"
        return (
            f"the package {PACKAGE} {PACKAGE_VERSION}, 4-bit weights taken apart: near "
            f"{self.model} on the Hub, not equal to it"
        )


def write_smollm2(out: Path, dtype: Dtype, say: Callable[[str], object]) -> tuple[Origin, bool]:
    """Write the folder, whole or not at all.

    Args:
        out: The folder.
        dtype: Of the weights.
        say: Is told in a line what is done.

    Returns:
        Where the model comes from, and False if the folder was there as it should be.

    Raises:
        UserError: Something else is there, the disk or the memory is too small, the model cannot
            be had, or the folder cannot be written.
    """
    if (there := _written_before(out, dtype)) is not None:
        return there, False
    _check_room(out, dtype)
    source = find_source(say)
    say(
        f"Reading the weights in {dtype}"
        + (", half a minute for 4-bit ones" if source.gguf else "")
    )
    tokenizer = read_tokenizer(source)
    model = AutoModelForCausalLM.from_pretrained(
        source.folder,
        dtype=getattr(torch, dtype),
        trust_remote_code=False,
        **({"gguf_file": source.gguf} if source.gguf else {"use_safetensors": True}),
    )
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model.config.update(tokens)
    model.generation_config = GenerationConfig(**tokens)  # type: ignore[no-untyped-call]
    say(f"Writing {out}")
    with whole_folder(out) as folder:
        with writing(out):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        origin = _origin(source, dtype, folder)
        _write(folder / CARD, render("base/card.md.j2", origin=origin, package=PACKAGE))
        _write(folder / ORIGIN, origin.model_dump_json(indent=2, exclude_none=True) + "\n")
    return origin, True


def _written_before(out: Path, dtype: Dtype) -> Origin | None:
    """The origin of a folder that holds what would be written; None where nothing is there.

    Raises:
        UserError: Something else is there.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        origin = Origin.model_validate_json((out / ORIGIN).read_bytes())
        whole = all(file_sha256(out / name) == sha256 for name, sha256 in origin.files.items())
    except (OSError, ValidationError):
        whole = False
    if not whole or origin.dtype != dtype:
        raise UserError(
            f"is there already and is not this model in {dtype}; name another --out, or remove it",
            path=out,
        )
    return origin


def _check_room(out: Path, dtype: Dtype) -> None:
    """Refuse to begin where disk or memory are too small.

    Raises:
        UserError: So it is.
    """
    size = _WEIGHTS * _BYTES[dtype] + _OTHER_FILES
    place = next(path for path in out.absolute().parents if path.is_dir())
    free = shutil.disk_usage(place).free
    if free < size:
        raise UserError(
            f"takes {size / 1e6:,.0f} MB in {dtype}, and {free / 1e6:,.0f} MB are free; free some "
            "space, or name another place",
            path=out,
        )
    available = available_memory()
    if available is not None and available < _MEMORY[dtype]:
        raise UserError(
            f"writing the model takes about {_MEMORY[dtype] / 1e9:.1f} GB of memory, and "
            f"{available / 1e9:.1f} GB are available; end other programs, or use another machine"
        )


def _origin(source: Source, dtype: Dtype, folder: Path) -> Origin:
    return Origin(
        source="package" if source.gguf else "hub",
        revision=None if source.gguf else REVISION,
        gguf_sha256=GGUF_SHA256 if source.gguf else None,
        dtype=dtype,
        files={file.name: file_sha256(file) for file in sorted(folder.iterdir())},
    )


def _write(path: Path, text: str) -> None:
    with atomic_writer(path) as stream:
        stream.write(text.encode())
