"""A model for predictions: lm-eval's arguments, and what tells one trained model from another."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regreason_plugin.core.errors import UserError, user_errors_passed_on
from regreason_plugin.evaluate.answer_cache import folder_digest

if TYPE_CHECKING:
    from regreason_plugin.evaluate.model import RegReasonHF

# Folders among the model's arguments.
_FOLDERS = ("pretrained", "peft", "tokenizer")


def read_model_args(given: str) -> dict[str, Any]:
    """``pretrained=BASE,peft=ADAPTER`` as lm-eval reads it.

    Raises:
        UserError: There is no ``pretrained``, a part is no pair, or a folder does not exist.
    """
    from lm_eval.utils import simple_parse_args_string

    # It takes a word without = for a name with nothing after it.
    for part in given.split(","):
        if part.strip() and "=" not in part:
            raise UserError(
                f"--model_args {given}: {part.strip()!r} is no name=value; pairs have commas "
                "between them, so a value holds none: rename a folder whose name does"
            )
    arguments: dict[str, Any] = simple_parse_args_string(given)
    if not arguments.get("pretrained"):
        raise UserError("--model_args has no pretrained=; write pretrained=BASE,peft=ADAPTER")
    for name in _FOLDERS:
        path = str(arguments.get(name, ""))
        # An id of the Hub has one slash and does not begin like a path.
        if (path.startswith(("/", ".", "~")) or path.count("/") > 1) and not Path(path).is_dir():
            raise UserError(f"--model_args {name}={path}: no such folder")
    return arguments


def model_facts(arguments: dict[str, Any]) -> dict[str, str]:
    """The `folder_digest` of each folder of a model."""
    facts = {}
    for name in _FOLDERS:
        folder = Path(str(arguments.get(name, "")))
        if name not in arguments or not folder.is_dir():
            continue
        facts[f"{name}_digest"] = folder_digest(folder)
    return facts


def load_model(arguments: dict[str, Any], batch_size: int | str, device: str | None) -> RegReasonHF:
    """The model as ``regreason eval`` has it, without probes unless they are asked for.

    Args:
        arguments: As `read_model_args` gives them.
        batch_size: Rows a batch, or ``auto``.
        device: None for a GPU where there is one, else the CPU; lm-eval would insist on the GPU.

    Raises:
        UserError: It cannot be loaded.
    """
    import torch

    from regreason_plugin.evaluate.model import RegReasonHF

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with user_errors_passed_on():
        try:
            model: RegReasonHF = RegReasonHF.create_from_arg_obj(
                {"probe": "none", **arguments}, {"batch_size": batch_size, "device": device}
            )
        except (OSError, ValueError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"the model cannot be loaded: {lines[0]}") from error
    # lm-eval encodes a context anew for each label, one after the other. (Also for the memory:
    # tokenizers 0.23.1 keeps 64 bytes of every text that it has encoded.)
    model.tok_encode = lru_cache(maxsize=2)(model.tok_encode)
    return model
