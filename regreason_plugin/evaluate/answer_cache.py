"""Cache keys that separate models in lm-eval's ``--use_cache``.

lm-eval's own keys hold only the text of a request, so one model would get another's answers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import CALIBRATION
from regreason_plugin.core.version import __version__

# Endings of a model's files. Its folder may also hold logs and results, which change later.
_ENDINGS = ("json", "safetensors", "bin", "pt", "gguf", "model", "txt", "jinja", "py")
# Of a file above 64 MiB, the digest reads 64 pieces of 1 MiB, evenly spread over the file.
_PIECES = 64
_PIECE = 1 << 20
# Arguments that name a repository on the Hub if they name no folder.
_ON_HUB = ("pretrained", "peft", "tokenizer", "delta")
# Arguments that decide how answers are computed; they change at most an answer's last digits.
IRRELEVANT_ARGUMENTS = frozenset(
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
    """A digest of a model's files, which changes if the model is trained again.

    Of a file above 64 MiB, it reads 64 pieces of 1 MiB. It leaves out the calibration, which is
    made from the model's scores and does not change them.
    """
    digest = hashlib.sha256()
    for path in sorted(path for end in _ENDINGS for path in folder.glob(f"*.{end}")):
        if path.name == CALIBRATION:
            continue
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
    """A digest of everything that determines a model's answers, as part of a cache key.

    Args:
        model: The kind of model, from ``--model``.
        arguments: The model's arguments, from ``--model_args``.

    Raises:
        UserError: A model or a tokenizer is a Python object, which has no name to key by.
    """
    facts: dict[str, Any] = {"regreason": __version__, "model": model}
    for name, value in sorted(arguments.items()):
        if name in IRRELEVANT_ARGUMENTS or value is None:
            continue
        if name in _ON_HUB and not isinstance(value, str):
            raise UserError(
                f"--use_cache needs {name}= as a name or a folder, but it is a Python object; "
                "leave use_cache out"
            )
        facts[name] = [str(value), _content(name, str(value), arguments)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _content(name: str, value: str, arguments: Mapping[str, Any]) -> str | None:
    """A digest of a folder or a file, or the commit of a repository on the Hub; else None."""
    # (The methods of Path raise an error if the text is too long for a path.)
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
        # Downloads only small files; the folder's name is the commit.
        folder = snapshot_download(
            value,
            revision=None if revision is None else str(revision),
            allow_patterns="*config.json",
        )
    except (OSError, ValueError):
        return None  # loading the model will report the reason
    return Path(folder).name
