"""The models of the GPU benchmark: random weights created on the device, or SmolLM2's folder."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

from bench.gpu.result import SkipPart

TINY = "tiny"
MISTRAL = "mistral-7b"
SMOLLM2 = "smollm2"
RANDOM = {
    TINY: {
        **{"vocab_size": 1280, "hidden_size": 64, "intermediate_size": 128},
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    },
    # The defaults of transformers' MistralConfig are those of Mistral-7B-v0.1.
    MISTRAL: {},
}
WORDS = {
    TINY: "a Mistral of 2 blocks of width 64, random weights",
    MISTRAL: "the shape of Mistral-7B-v0.1, random weights",
    SMOLLM2: "SmolLM2-135M-Instruct",
}
TOKENIZER = Path(__file__).parents[3] / "axolotl_configs" / "cpu" / "tiny-base"
WINDOW = 2048


def load(shape: str, device: str, smollm2: Path | None) -> tuple[Any, Any]:
    """Load a model in eval mode, and its tokenizer.

    Random models are in bfloat16. SmolLM2 is in float32, so that a difference between two ways to
    score cannot come from the precision.

    Raises:
        SkipPart: The shape is SmolLM2 and its folder is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if shape == SMOLLM2:
        folder = smollm2_folder(smollm2)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)
    return _random(shape, device), AutoTokenizer.from_pretrained(TOKENIZER)


def smollm2_folder(folder: Path | None) -> Path:
    """Check that a folder holds a model, and return it.

    Raises:
        SkipPart: No folder was given, or it holds no model.
    """
    if folder is None:
        raise SkipPart(
            "no SmolLM2 folder was given (`regreason base smollm2 --out DIR` writes one for "
            "`--smollm2 DIR`)"
        )
    if not (folder / "config.json").is_file():
        raise SkipPart(f"the folder {folder.name} holds no model, as it has no config.json")
    return folder


def random_folder(shape: str, device: str, scratch: Path) -> Path:
    """The folder of a random model with a tokenizer, for Axolotl's ``base_model``.

    The folder is written once for all parts that share a scratch folder.
    """
    import torch
    from transformers import AutoTokenizer

    folder = scratch / shape
    if not folder.is_dir():
        half = scratch / f"{shape}.half"
        shutil.rmtree(half, ignore_errors=True)
        _random(shape, device).save_pretrained(half)
        AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(half)
        half.rename(folder)
        # Frees the GPU memory, which the training needs in another process.
        gc.collect()
        torch.cuda.empty_cache()
    return folder


def _random(shape: str, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, MistralConfig

    torch.manual_seed(0)
    config = MistralConfig(**RANDOM[shape], max_position_embeddings=WINDOW)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
