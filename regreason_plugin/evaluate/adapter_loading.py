"""Loading an adapter on its base without changing the base's vocabulary.

lm-eval's ``hf`` resizes the embeddings to the tokenizer's length before it loads an adapter. Many
bases have more rows than their tokenizer has tokens: the rows that it cuts leave the softmax, and
an adapter scores otherwise than its exact merge. Here only what the adapter saved decides.
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
    """A base with its adapter.

    The embeddings get as many rows as the adapter has saved of them. Of an adapter that saved
    none they stay as they are, unless the tokenizer has more tokens than they have rows.

    Args:
        model: The base, a model of transformers.
        adapter: Its folder or its name on the Hub.
        tokenizer: The one in use.
        revision: Of the adapter on the Hub.

    Raises:
        UserError: The adapter was trained with tokens that the tokenizer lacks.
    """
    # Models without an adapter are scored without peft, as with `hf`.
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
    # hf ties the head to the embeddings once more, which fails on one that the adapter replaced.
    adapted.tie_weights = lambda: None
    return adapted


def _saved_rows(weights: Mapping[str, Tensor], model: Any) -> int | None:
    """How many rows the embeddings or the head had in training, where the adapter saved any."""
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    # By their last name: what stands before it differs between versions of transformers.
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
    """Refuse a tokenizer that would cut the tokens that were added for training into others.

    Raises:
        UserError: The one beside the adapter has more tokens than its padding.
    """
    if not (Path(adapter) / "tokenizer_config.json").is_file():
        return
    own = AutoTokenizer.from_pretrained(adapter)
    missing = own.get_vocab().keys() - tokenizer.get_vocab().keys() - {own.pad_token}
    if missing:
        raise UserError(
            f"the adapter was trained with {len(missing)} tokens that the tokenizer in use lacks "
            f"({', '.join(map(repr, sorted(missing)[:3]))}); add tokenizer={adapter} to "
            "--model_args",
            path=adapter,
        )
