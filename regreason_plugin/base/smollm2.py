"""SmolLM2-135M-Instruct as a folder in transformers' format, with a card that names its origin."""

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
# Bytes: the peak that `/usr/bin/time -v regreason base smollm2` showed with the package's file,
# plus 10 %.
_MEMORY = {"float32": 1_650_000_000, "bfloat16": 1_350_000_000}


class Origin(BaseModel):
    """The content of ``origin.json``: the origin of a folder's model, and the folder's files.

    Attributes:
        model: Name of the model on the Hub.
        source: Whether the model was read from the Hub or from the package.
        revision: Commit on the Hub; None for the package.
        gguf_sha256: sha256 of the package's file; None for the Hub.
        dtype: Type of the weights in the folder.
        files: sha256 of each file by its name, except the card and ``origin.json``.
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
        """The model's origin as a phrase for people."""
        if self.source == "hub":
            return f"{self.model} on the Hub, revision {self.revision}"
        return (
            f"the package {PACKAGE} {PACKAGE_VERSION}, with 4-bit weights dequantised: close to "
            f"{self.model} on the Hub, but not equal to it"
        )


def write_smollm2(out: Path, dtype: Dtype, say: Callable[[str], object]) -> tuple[Origin, bool]:
    """Write the model's folder, whole or not at all.

    Args:
        out: The folder to write.
        dtype: Type of the weights.
        say: Prints a line about each step.

    Returns:
        The model's origin, and whether the folder was written; it is not written if it already
        holds this model in this type.

    Raises:
        UserError: Something else is at ``out``, disk or memory are too small, neither the Hub nor
            the package has the model, or the folder cannot be written.
    """
    if (origin := _written_before(out, dtype)) is not None:
        return origin, False
    _check_room(out, dtype)
    source = find_source(say)
    say(
        f"Reading the weights in {dtype}"
        + (" (4-bit weights take half a minute)" if source.gguf else "")
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
    """The origin of a folder that already holds the model; None if ``out`` is missing or empty.

    Raises:
        UserError: Something else is at ``out``.
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
            f"exists and is not this model in {dtype}; name another --out, or remove it",
            path=out,
        )
    return origin


def _check_room(out: Path, dtype: Dtype) -> None:
    """Check that the free disk space and the available memory suffice.

    Raises:
        UserError: One of them does not suffice.
    """
    size = _WEIGHTS * _BYTES[dtype] + _OTHER_FILES
    parent = next(path for path in out.absolute().parents if path.is_dir())
    free = shutil.disk_usage(parent).free
    if free < size:
        raise UserError(
            f"takes {size / 1e6:,.0f} MB in {dtype}, and {free / 1e6:,.0f} MB are free; free some "
            "space, or name another --out",
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
