"""Fixtures that several tests of trainings share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.step_training import Trainings


@pytest.fixture(scope="session")
def train(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """Trainings of three steps with all rows per step, one training for each name."""
    return Trainings(tiny_model, tmp_path_factory.mktemp("steps"))


@pytest.fixture(scope="session")
def mistral_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with the sentencepiece tokenizer of the Mistral 7B v0.1 family."""
    import mistral_common
    from transformers import MistralConfig, MistralForCausalLM

    folder = tmp_path_factory.mktemp("mistral_model")
    data = Path(mistral_common.__file__).parent / "data"
    shutil.copy(data / "tokenizer.model.v1", folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "LlamaTokenizer",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "add_bos_token": True,
                "add_eos_token": False,
                "legacy": False,
                "model_max_length": 2048,
            }
        )
    )
    MistralForCausalLM(
        MistralConfig(
            vocab_size=32000,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).save_pretrained(folder)
    return folder
