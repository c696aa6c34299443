"""Loads a model for predictions from lm-eval's arguments, and identifies it by its files."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regreason_plugin.core.errors import UserError, raising_user_errors
from regreason_plugin.evaluate.answer_cache import folder_digest

if TYPE_CHECKING:
    from regreason_plugin.evaluate.model import RegReasonHF

# The model arguments that may name a folder.
_FOLDERS = ("pretrained", "peft", "tokenizer")


def read_model_args(given: str) -> dict[str, Any]:
    """Parse ``pretrained=BASE,peft=ADAPTER`` as lm-eval does.

    Raises:
        UserError: ``pretrained`` is missing, a part is not ``name=value``, or a folder does not
            exist.
    """
    from lm_eval.utils import simple_parse_args_string

    # lm-eval's parser reads a part without = as a name with an empty value.
    for part in given.split(","):
        if part.strip() and "=" not in part:
            raise UserError(
                f"--model_args {given}: {part.strip()!r} is not a name=value pair; commas separate "
                "the pairs, so no value can contain one: rename a folder that has one in its name"
            )
    arguments: dict[str, Any] = simple_parse_args_string(given)
    if not arguments.get("pretrained"):
        raise UserError("--model_args has no pretrained=; write pretrained=BASE,peft=ADAPTER")
    for name in _FOLDERS:
        path = str(arguments.get(name, ""))
        # A Hub id has at most one slash and does not begin like a path.
        if (path.startswith(("/", ".", "~")) or path.count("/") > 1) and not Path(path).is_dir():
            raise UserError(f"--model_args {name}={path}: no such folder")
    return arguments


def model_facts(arguments: dict[str, Any]) -> dict[str, str]:
    """The `folder_digest` of each local folder that the model arguments name."""
    facts = {}
    for name in _FOLDERS:
        folder = Path(str(arguments.get(name, "")))
        if name not in arguments or not folder.is_dir():
            continue
        facts[f"{name}_digest"] = folder_digest(folder)
    return facts


def load_model(arguments: dict[str, Any], batch_size: int | str, device: str | None) -> RegReasonHF:
    """Load a model as ``regreason eval`` does, without probes unless the arguments ask for them.

    Args:
        arguments: The model arguments from `read_model_args`.
        batch_size: Rows per batch, or ``auto``.
        device: The device; None for a GPU if there is one, else the CPU. (lm-eval's own default
            is always the GPU.)

    Raises:
        UserError: The model cannot be loaded.
    """
    import torch

    from regreason_plugin.evaluate.model import RegReasonHF

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with raising_user_errors():
        try:
            model: RegReasonHF = RegReasonHF.create_from_arg_obj(
                {"probe": "none", **arguments}, {"batch_size": batch_size, "device": device}
            )
        except (OSError, ValueError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"the model cannot be loaded: {lines[0]}") from error
    # lm-eval encodes a context once per label, in direct succession. Caching also saves memory:
    # tokenizers 0.23.1 keeps 64 bytes for every text that it has encoded.
    model.tok_encode = lru_cache(maxsize=2)(model.tok_encode)
    return model
