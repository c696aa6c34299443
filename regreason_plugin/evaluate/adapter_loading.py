"""Loads an adapter on its base model without changing the size of the base's vocabulary.

lm-eval's ``hf`` resizes the embeddings to the tokenizer's length before it loads an adapter. The
embeddings of many base models have more rows than the tokenizer has tokens. If ``hf`` cuts these
rows, they are missing from the softmax, and an adapter's scores differ from those of its exact
merge. Here only the embeddings that the adapter saved determine the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import AutoTokenizer

from regreason_plugin.core.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel


def load_adapter(
    model: Any, adapter: str, tokenizer: Any, revision: str | None = None
) -> PeftModel:
    """Load an adapter on its base model.

    The embeddings get as many rows as the adapter saved. If the adapter saved no embeddings,
    their size stays the same, unless the tokenizer has more tokens than they have rows.

    Args:
        model: The base model, of transformers.
        adapter: The adapter's folder, or its name on the Hub.
        tokenizer: The tokenizer in use.
        revision: The adapter's revision on the Hub.

    Returns:
        The base model with the adapter.

    Raises:
        UserError: The adapter was trained with tokens that the tokenizer lacks.
    """
    # Imported here because models without an adapter are scored without peft, as with `hf`.
    from peft import PeftConfig, PeftModel
    from peft.utils import load_peft_weights

    config = PeftConfig.from_pretrained(adapter, revision=revision)
    _check_tokenizer(adapter, tokenizer)
    saved = None
    if not config.is_prompt_learning:
        saved = _saved_rows(load_peft_weights(adapter, device="cpu", revision=revision), model)
    rows = model.get_input_embeddings().weight.shape[0]
    wanted = saved or max(rows, len(tokenizer))
    if wanted != rows:
        model.resize_token_embeddings(wanted)
    adapted = PeftModel.from_pretrained(model, adapter, revision=revision)
    # hf ties the head to the embeddings again, which fails if the adapter replaced the head.
    adapted.tie_weights = lambda: None
    return adapted


def _saved_rows(weights: Mapping[str, Tensor], model: Any) -> int | None:
    """Rows of the embeddings or the head in training; None if the adapter saved neither."""
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    # Only the last part of a module's name: the others differ between versions of transformers.
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if any(module is layer for layer in layers)
    }
    for key, weight in weights.items():
        if not names & set(key.split(".")):
            continue
        if key.endswith("lora_embedding_A"):
            return weight.shape[1]
        if key.endswith(".weight") and not key.endswith("lora_A.weight"):
            return weight.shape[0]
    return None


def _check_tokenizer(adapter: str, tokenizer: Any) -> None:
    """Refuse a tokenizer that lacks tokens which were added for the training.

    Such a tokenizer would split these tokens into others. A padding token may be missing.

    Raises:
        UserError: The tokenizer beside the adapter has more tokens.
    """
    if not (Path(adapter) / "tokenizer_config.json").is_file():
        return
    trained = AutoTokenizer.from_pretrained(adapter)
    missing = trained.get_vocab().keys() - tokenizer.get_vocab().keys() - {trained.pad_token}
    if missing:
        raise UserError(
            f"the adapter was trained with {len(missing)} tokens that the tokenizer in use lacks "
            f"({', '.join(map(repr, sorted(missing)[:3]))}); add tokenizer={adapter} to "
            "--model_args",
            path=adapter,
        )
