"""Keeping models apart in lm-eval's ``--use_cache``, whose own keys hold a request's text alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.version import __version__

# What a model's files are called; beside them lie logs and results, which change later.
_ENDINGS = ("json", "safetensors", "bin", "pt", "gguf", "model", "txt", "jinja", "py")
# Of a file that is larger, as many pieces are read, spread over all of it.
_PIECES = 64
_PIECE = 1 << 20
# On the Hub, where they are not folders.
_ON_HUB = ("pretrained", "peft", "tokenizer", "delta")
# How answers are computed, not which: another batch or device changes the last digits.
HOW = frozenset(
    {
        "batch_size",
        "max_batch_size",
        "device",
        "device_map",
        "parallelize",
        "max_memory_per_gpu",
        "max_cpu_memory",
        "offload_folder",
        "logits_cache",
    }
)


def folder_digest(folder: Path) -> str:
    """A digest of a model's files, so that one trained anew does not pass for the same.

    Of a file above 64 MiB, 64 pieces of 1 MiB are read.
    """
    digest = hashlib.sha256()
    for path in sorted(path for end in _ENDINGS for path in folder.glob(f"*.{end}")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as stream:
            if size <= _PIECES * _PIECE:
                digest.update(stream.read())
                continue
            for piece in range(_PIECES):
                stream.seek(piece * (size - _PIECE) // (_PIECES - 1))
                digest.update(stream.read(_PIECE))
    return digest.hexdigest()[:16]


def answers_digest(model: str, arguments: Mapping[str, Any]) -> str:
    """A digest of all that decides what a model answers to a text.

    Args:
        model: Its kind, as ``--model`` has it.
        arguments: ``--model_args``.

    Raises:
        UserError: A model or a tokenizer is given as an object, of which nothing tells whether
            it is the same.
    """
    facts: dict[str, Any] = {"regreason": __version__, "model": model}
    for name, value in sorted(arguments.items()):
        if name in HOW or value is None:
            continue
        if name in _ON_HUB and not isinstance(value, str):
            raise UserError(
                f"--use_cache needs {name}= as a name or a folder, and it is an object; "
                "leave out use_cache"
            )
        facts[name] = [str(value), _content(name, str(value), arguments)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _content(name: str, value: str, arguments: Mapping[str, Any]) -> str | None:
    """What a folder or a file holds, or which commit a name on the Hub stands for."""
    # (Path's own methods raise where a text is too long for a path.)
    if os.path.isdir(value):  # noqa: PTH112
        inner = Path(value, str(arguments.get("subfolder") or ""))
        return folder_digest(inner if inner.is_dir() else Path(value))
    if os.path.isfile(value):  # noqa: PTH113
        return hashlib.sha256(Path(value).read_bytes()).hexdigest()
    if name not in _ON_HUB:
        return None
    from huggingface_hub import snapshot_download

    revision = arguments.get("revision")
    try:
        # A folder named by the commit, with a small file.
        folder = snapshot_download(
            value,
            revision=None if revision is None else str(revision),
            allow_patterns="*config.json",
        )
    except (OSError, ValueError):
        return None  # loading it says why
    return Path(folder).name
